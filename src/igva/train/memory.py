"""What one training step takes in memory and arithmetic, found without weights, data or a GPU.

The step itself runs: the real model, the real loss, autograd, autocast, the real optimizer. Its tensors are fake ones
(``FakeTensorMode``), which have shapes, types and lifetimes but no values. Bytes are added up as tensors come and go.

``torch.distributed._tools.MemTracker`` does the same, but counts what the forward pass drops again among the
activations, cannot say how devices share a kind of tensor, and walks over all modules at every operation.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import convert_outputs_to_fp32
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import set_checkpoint_early_stop
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from igva.train.arguments import Recipe
from igva.train.distributed import blocks
from igva.train.stages import parameter_groups, set_trainable

INSTRUCTION_TURNS, INSTRUCTION_TOKENS = 4, 64  # of a picture's questions, where no cached vectors take their place
NF4_BLOCK, NF4_BLOCKS_PER_SCALE = 64, 256  # weights per 8-bit scale, scales per float32 scale (double quantization)


@dataclass(frozen=True)
class Memory:
    """Bytes on one device at the fullest moment of a step.

    Attributes:
        activations: what the forward pass made and is still needed, the inputs included.
        temporaries: what the backward pass or the optimizer made and will drop.
    """

    KINDS = ("weights", "gradients", "optimizer", "activations", "temporaries", "total")

    weights: int
    gradients: int
    optimizer: int
    activations: int
    temporaries: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations + self.temporaries


@dataclass(frozen=True)
class Step:
    """The worst step to plan for, as one device sees it.

    Attributes:
        samples: at a time, each with ``tokens`` tokens (its visual ones included) and ``pictures`` pictures.
        accumulate: micro-batches to a step.
        devices: that share the work.
        gpu: the optimizer works on all tensors at once, as it does on a GPU, not on one after another.
    """

    samples: int
    tokens: int
    pictures: int = 1
    accumulate: int = 1
    devices: int = 1
    gpu: bool = True


def step_memory(model: Any, recipe: Recipe, step: Step) -> Memory:
    """The peak of a training step.

    Args:
        model: a model on the meta device in the recipe's dtype; it is changed.
    """
    sharing = _Sharing(recipe, step.devices)
    prepare(model, recipe)
    fixed = sharing.weights(model), sharing.optimizer(model)
    if sharing.casts_weights:  # shards are gathered in bfloat16, so autocast keeps no copies of its own
        model.to(torch.bfloat16)
    ledger = _Ledger({"gradients": sharing.gradient_share(), "updates": sharing.state_share})
    with _fake(model):
        optimizer = _optimizer(model, recipe, step.gpu)
        _run_step(model, recipe, step, optimizer, ledger)
    peak = ledger.peak
    temporaries = peak["temporaries"] + peak["updates"]
    return Memory(fixed[0], int(peak["gradients"]), fixed[1], int(peak["activations"]), int(temporaries))


def step_flops(model: Any, recipe: Recipe, step: Step) -> int:
    """Floating-point operations of forward and backward of ``step.samples``; a multiplication and an addition are two.

    Args:
        model: as in ``step_memory``.
    """
    # The attention kernel that fake tensors meet is the CPU's; FlopCounterMode knows the others.
    kernels = {
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flops,
    }
    counter = FlopCounterMode(display=False, custom_mapping=kernels)
    prepare(model, recipe)
    with _fake(model), counter:
        _loss(model, recipe, _inputs(model, recipe, step)).backward()
    return int(counter.get_total_flops())


def _attention_flops(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


def _attention_backward_flops(grad: Any, query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
    return int(sdpa_backward_flop_count(grad, query, key, value))


def prepare(model: Any, recipe: Recipe) -> None:
    """Freeze, adapt and quantize as the run will."""
    with torch.device("meta"):  # adapters too
        set_trainable(model, recipe)
        if recipe.lora.quantize == "nf4":
            _quantize(model.model.language_model, getattr(torch, recipe.model.dtype))
    model.train()
    if recipe.optim.gradient_checkpointing:
        # There is no dropout whose random state a second forward pass would have to repeat.
        options = {"use_reentrant": False, "preserve_rng_state": False}
        enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
        enable(options)


# --- the step -----------------------------------------------------------------------------------------------------


def _run_step(model: Any, recipe: Recipe, step: Step, optimizer: torch.optim.Optimizer, ledger: _Ledger) -> None:
    """One step as the trainer does it, in a run that has made its first step already."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for tensor in tree_leaves([list(model.parameters()), list(model.buffers()), list(optimizer.state.values())]):
        if isinstance(tensor, Tensor):
            ledger.exempt(tensor)
    for parameter in trained:
        parameter.register_post_accumulate_grad_hook(lambda p: ledger.move(p.grad, "gradients"))
        if step.accumulate > 1:  # the gradients of the micro-batches before
            parameter.grad = torch.zeros_like(parameter)
            ledger.move(parameter.grad, "gradients")
    with ledger:
        loss = _loss(model, recipe, _inputs(model, recipe, step))
        ledger.kind = "temporaries"
        loss.backward()
        ledger.kind = "updates"
        nn.utils.clip_grad_norm_(trained, recipe.optim.max_grad_norm)
        optimizer.step()


def _loss(model: Any, recipe: Recipe, inputs: dict[str, Any]) -> Tensor:
    """Forward pass and loss under autocast, as Accelerate wraps them.

    The model's own choice of the supervised positions depends on values, so they are given as an index.
    """
    labels = inputs.pop("labels")

    def forward() -> Any:
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.optim.bf16 is True):
            outputs = model(**inputs)
            outputs.loss = model.loss_function(
                logits=outputs.logits, labels=None, shift_labels=labels, vocab_size=outputs.logits.shape[-1]
            )
            return outputs

    outputs = (convert_outputs_to_fp32(forward) if recipe.optim.bf16 else forward)()
    return outputs.loss + (outputs.aux_loss if outputs.aux_loss is not None else 0)


def _inputs(model: Any, recipe: Recipe, step: Step) -> dict[str, Any]:
    """A batch in which every sample has all its tokens, and all but the visual ones are learnt."""
    rows, width = step.samples, step.tokens
    learnt = max(1, width - step.pictures * model.model.fusion.num_tokens)
    if packed := recipe.data.pack_tokens:
        per_row = packed // width
        rows, width, learnt = -(-rows // per_row), width * min(rows, per_row), learnt * min(rows, per_row)
    inputs: dict[str, Any] = {"input_ids": torch.zeros(rows, width, dtype=torch.long)}
    if packed:
        inputs |= {"position_ids": torch.zeros(rows, width, dtype=torch.long), "use_cache": False}
    else:
        inputs["attention_mask"] = torch.ones(rows, width, dtype=torch.long)
    inputs["logits_to_keep"] = torch.arange(learnt)
    inputs["labels"] = torch.zeros(rows, learnt, dtype=torch.long)
    return inputs | _picture_inputs(model, recipe, step.samples * step.pictures)


def _picture_inputs(model: Any, recipe: Recipe, pictures: int) -> dict[str, Tensor]:
    fusion, dims, cached = model.model.fusion, model.model.fusion.dims, recipe.data.cache_features
    inputs: dict[str, Tensor] = {}
    if cached:
        shape = (pictures, len(fusion.taps), dims.num_patches, dims.vision_dim)
        inputs["layer_patches"] = torch.zeros(shape, dtype=torch.bfloat16)
        inputs["layer_descriptors"] = torch.zeros(shape[0], shape[1], shape[3], dtype=torch.bfloat16)
    else:
        inputs["pixel_values"] = torch.zeros(pictures, 3, model.config.input_size, model.config.input_size)
    if fusion.needs_instruction and (cached or model.model.instruction_encoder is None):
        inputs["instruction_embeds"] = torch.zeros(pictures, dims.instruction_dim)
    elif fusion.needs_instruction:
        questions = (pictures, INSTRUCTION_TURNS, INSTRUCTION_TOKENS)
        inputs["instruction_input_ids"] = torch.zeros(questions, dtype=torch.long)
        inputs["instruction_attention_mask"] = torch.ones(questions, dtype=torch.long)
    return inputs


def _optimizer(model: Any, recipe: Recipe, gpu: bool) -> torch.optim.Optimizer:
    """AdamW after its first step: its states are there, the gradients are gone."""
    optimizer = torch.optim.AdamW(parameter_groups(model, recipe.optim), foreach=gpu)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    return optimizer


# --- adding up ----------------------------------------------------------------------------------------------------


class _Ledger(TorchDispatchMode):
    """Adds up the bytes of the tensors alive, by kind, and keeps their state at the fullest moment.

    Args:
        shares: kind → what of it one device holds; default: all.
    """

    KINDS = ("activations", "temporaries", "updates", "gradients")

    def __init__(self, shares: Mapping[str, float]):
        super().__init__()
        self.kind = "activations"  # what new tensors are
        self.shares = dict.fromkeys(self.KINDS, 1.0) | dict(shares)
        self.peak = dict.fromkeys(self.KINDS, 0.0)
        self._live = dict.fromkeys(self.KINDS, 0.0)
        self._kinds: dict[int, str | None] = {}  # by storage; None is not counted here

    def exempt(self, tensor: Tensor) -> None:
        """Leave a tensor out of the count."""
        self._kinds[id(tensor.untyped_storage())] = None

    def move(self, tensor: Tensor, kind: str) -> None:
        """Count a tensor as this kind from now on."""
        storage = tensor.untyped_storage()
        if id(storage) not in self._kinds:
            self._enter(storage)
        self._add(storage.nbytes(), self._kinds[id(storage)], -1)
        self._kinds[id(storage)] = kind
        self._add(storage.nbytes(), kind, 1)

    def _enter(self, storage: Any) -> None:
        self._kinds[id(storage)] = self.kind
        self._add(storage.nbytes(), self.kind, 1)
        weakref.finalize(storage, self._leave, id(storage), storage.nbytes())

    def _leave(self, key: int, size: int) -> None:
        self._add(size, self._kinds.pop(key), -1)

    def _add(self, size: int, kind: str | None, sign: int) -> None:
        if kind is not None:
            self._live[kind] += sign * size * self.shares[kind]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and id(storage := tensor.untyped_storage()) not in self._kinds:
                self._enter(storage)
        if sum(self._live.values()) > sum(self.peak.values()):
            self.peak = dict(self._live)
        return result


class _Sharing:
    """What of each kind one of several devices holds."""

    def __init__(self, recipe: Recipe, devices: int):
        self.way = recipe.distributed
        self.devices = devices
        zero = self.way.startswith("zero")
        sharded = zero or (self.way == "fsdp" and devices > 1)
        self.casts_weights = sharded and recipe.optim.bf16
        self.state_share = 1 / devices if sharded else 1.0
        self._weight_share = 1 / devices if self.way in ("fsdp", "zero3") else 1.0
        self._zero = zero

    def weights(self, model: Any) -> int:
        """Bytes, with what is gathered for the moment where weights are sharded: everything outside the
        transformer blocks, and the largest block."""
        whole = self._bytes(model)
        if self._weight_share == 1:
            return whole
        units = [self._gathered(block) for block in blocks(model)]
        rest = self._gathered(model) - sum(units)
        return int(whole * self._weight_share) + rest + max(units, default=0)

    def _bytes(self, module: nn.Module) -> int:
        """DeepSpeed keeps weights in bfloat16 and the float32 they stand for with the optimizer."""
        tensors = [*module.parameters(), *module.buffers()]
        cast = self._zero and self.casts_weights
        return sum(t.numel() * 2 if cast and t.is_floating_point() else t.nbytes for t in tensors)

    def _gathered(self, module: nn.Module) -> int:
        return sum(p.numel() * (2 if self.casts_weights else p.element_size()) for p in module.parameters())

    def optimizer(self, model: nn.Module) -> int:
        """Bytes: two float32 states per trained parameter, and with DeepSpeed the float32 weight."""
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        return int(trained * (12 if self._zero else 8) * self.state_share)

    def gradient_share(self) -> float:
        """DDP keeps a copy in its buckets; a shard is kept in float32 where the fake gradients are bfloat16."""
        if self.way == "ddp":
            return 2.0 if self.devices > 1 else 1.0
        return self.state_share * (2 if self.casts_weights else 1)


# --- fake tensors -------------------------------------------------------------------------------------------------


@contextmanager
def _fake(model: Any) -> Iterator[None]:
    """Inside, the tensors of a meta model are fake CPU ones and so is everything new."""
    with FakeTensorMode(), set_checkpoint_early_stop(False):  # the early stop's exceptions keep tensors alive
        _replace_tensors(model)
        # Placeholders are counted by value, and there are no values.
        model.model.get_placeholder_mask = lambda ids, embeds, features: torch.zeros_like(embeds, dtype=torch.bool)
        yield


def _replace_tensors(model: nn.Module) -> None:
    """Parameters and buffers by new ones of the same shapes; shared parameters stay shared."""
    copies: dict[Tensor, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter not in copies:
                empty = torch.empty(parameter.shape, dtype=parameter.dtype)
                copies[parameter] = nn.Parameter(empty, requires_grad=parameter.requires_grad)
            setattr(module, name, copies[parameter])
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype))


# --- 4 bits -------------------------------------------------------------------------------------------------------


def _quantize(language_model: nn.Module, dtype: torch.dtype) -> None:
    """Every linear layer that is not an adapter's, by one in 4 bits."""
    for module in list(language_model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear and not child.weight.requires_grad:
                setattr(module, name, _Nf4Linear(child, dtype))


class _Nf4Linear(nn.Module):
    """Takes the memory of bitsandbytes' 4-bit linear layer: packed weights, made whole for the moment of use."""

    packed: Tensor

    def __init__(self, linear: nn.Linear, dtype: torch.dtype):
        super().__init__()
        self.shape, self.dtype = linear.weight.shape, dtype
        count = linear.weight.numel()
        scales = -(-count // NF4_BLOCK)
        size = -(-count // 2) + scales + 4 * -(-scales // NF4_BLOCKS_PER_SCALE)
        self.register_buffer("packed", torch.empty(size, dtype=torch.uint8))
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = _Nf4Product.apply(x.to(self.dtype), self.shape)
        return out.to(x.dtype) if self.bias is None else out.to(x.dtype) + self.bias


class _Nf4Product(torch.autograd.Function):
    """A product with weights that are made anew each time they are needed; the input is not kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, shape: torch.Size) -> Tensor:
        ctx.shape = shape
        return nn.functional.linear(x, x.new_empty(shape))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad @ grad.new_empty(ctx.shape), None
