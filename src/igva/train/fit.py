"""The cheapest settings under which a recipe fits a given GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from igva.data.sources import is_stream
from igva.errors import UserError
from igva.train.arguments import Recipe
from igva.train.memory import Memory
from igva.train.plan import Mix, Tick, plan_memory

ROOM = 0.9  # of a GPU's memory: the driver, the libraries and the allocator's gaps take the rest
DEVICES = (2, 4, 8)  # of one machine
# Rank, scale and learning rates of LLaVA-1.5's LoRA recipe (scripts/v1_5/finetune_lora.sh).
LORA = ("lora.rank=128", "lora.alpha=256", "optim.learning_rate=2e-4", "optim.projector_lr=2e-5")
NF4 = ("lora.quantize=nf4",)
SHARDED = ("distributed=zero3",)

Load = Callable[[Sequence[str]], Recipe]
Change = tuple[str, ...]


@dataclass(frozen=True)
class Fit:
    """What was found.

    Attributes:
        fits: False where nothing did; the rest then says what takes the least.
        overrides: settings to add, ``key=value``; none where the recipe fits as it is.
        devices: how many it needs.
        memory: of each.
    """

    fits: bool
    overrides: list[str]
    devices: int
    memory: Memory


class _Search:
    """Measures candidates, each once."""

    def __init__(self, load: Load, mix: Mix, limit: float, tick: Tick):
        self.load, self.mix, self.limit, self.tick = load, mix, limit, tick
        self._known: dict[tuple[frozenset[str], int], Fit] = {}

    def __call__(self, changes: Sequence[Change], devices: int, micro: int | None = 1) -> Fit:
        """A candidate.

        Args:
            micro: samples at a time; None leaves what the recipe says.

        Raises:
            UserError: the settings contradict each other.
        """
        overrides = [setting for change in changes for setting in change]
        if micro is not None:
            overrides.append(f"optim.micro_batch_size={micro}")
        key = (frozenset(overrides), devices)
        if key not in self._known:
            _, memory = plan_memory(self.load(overrides), self.mix, devices, True, self.tick)
            self._known[key] = Fit(memory.total <= self.limit, overrides, devices, memory)
        return self._known[key]


def find_fit(load: Load, mix: Mix, gpu_memory: float, devices: int = 1, tick: Tick = lambda: None) -> Fit:
    """Search in order of cost: a smaller micro-batch, gradient checkpointing, cached features, bfloat16, LoRA,
    4 bits, more devices.

    Args:
        load: further overrides → the recipe with them.
        gpu_memory: bytes of each device; the plan may take ``ROOM`` of it.
        devices: that are there in any case.

    Raises:
        UserError: as ``make_plan``.
    """
    search = _Search(load, mix, ROOM * gpu_memory, tick)
    recipe = load(())
    as_it_is = search((), devices, None)
    if as_it_is.fits:
        return as_it_is
    applied, smallest = _smallest(search, recipe, devices)
    if not smallest.fits:
        return smallest
    applied = _without_needless(search, applied, smallest.devices)
    return _largest_micro_batch(search, recipe, applied, smallest.devices)


def _smallest(search: _Search, recipe: Recipe, devices: int) -> tuple[list[Change], Fit]:
    """One sample at a time, and one change after another until it fits; or what takes the least."""
    applied: list[Change] = []
    tried = [(applied, search(applied, devices))]
    for change in _changes(recipe, devices):
        if tried[-1][1].fits:
            return tried[-1]
        applied = [*applied, change]
        tried.append((applied, search(applied, devices)))
    shardable = [change for change in applied if change != NF4]
    for count in DEVICES:
        if tried[-1][1].fits:
            return tried[-1]
        if count > devices and recipe.lora.quantize == "none" and recipe.optim.batch_size % count == 0:
            tried.append(([*shardable, SHARDED], search([*shardable, SHARDED], count)))
    return min(tried, key=lambda candidate: candidate[1].memory.total)


def _changes(recipe: Recipe, devices: int) -> list[Change]:
    """What saves memory on the same devices and can still be changed, in order of cost."""
    data, optim, lora, trains = recipe.data, recipe.optim, recipe.lora, recipe.trains()
    changes: list[Change] = []
    if not optim.gradient_checkpointing:
        changes.append(("optim.gradient_checkpointing=true",))
    if not (data.cache_features or data.augment or "vision" in trains or is_stream(data.train)):
        changes.append(("data.cache_features=true",))
    if recipe.model.dtype == "float32" or not optim.bf16:
        changes.append(("model.dtype=bfloat16", "optim.bf16=true"))
    if devices > 1 and recipe.distributed == "ddp" and lora.quantize == "none":
        changes.append(SHARDED)
    if "text" in trains and not lora.rank:
        changes.append(LORA)
    if lora.quantize == "none" and devices == 1 and recipe.distributed == "ddp":
        changes.append(NF4)
    return changes


def _without_needless(search: _Search, applied: list[Change], devices: int) -> list[Change]:
    """Take back what a later change made needless, the most costly first."""
    for change in applied[-2::-1]:
        fewer = [other for other in applied if other != change]
        try:
            fits = search(fewer, devices).fits
        except UserError:  # 4 bits need adapters
            continue
        if fits:
            applied = fewer
    return applied


def _largest_micro_batch(search: _Search, recipe: Recipe, applied: list[Change], devices: int) -> Fit:
    """The recipe's own micro-batch, or halves of it; one sample is known to fit."""
    share = recipe.optim.batch_size // devices
    micro = min(recipe.optim.micro_batch_size or share, share)
    fit = search(applied, devices, None)
    while not fit.fits:
        micro = micro // 2 if micro % 2 == 0 else 1
        fit = search(applied, devices, micro)
    return fit
