"""Several devices: how many there are, FSDP2 sharding, DeepSpeed settings.

DDP and DeepSpeed come through Accelerate. FSDP2 is applied here with torch's own ``fully_shard``: Accelerate's plug-in
falls back to something else on a CPU without a word, and one code path is the one that is tested.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import sys
from importlib import resources
from typing import Any

import torch
from accelerate import PartialState
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from transformers.integrations import is_deepspeed_available
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from igva.errors import UserError
from igva.train.arguments import Recipe


def world_size() -> int:
    """How many processes train together; ``torchrun`` sets it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def leave_processes(code: int = 0) -> None:
    """Leave the group, and with it the program: of several processes none comes back from here.

    FSDP's and DeepSpeed's caches keep gloo's threads alive. One that still holds a tensor of the last exchange while
    the interpreter is taken down aborts the process, about once in thirty runs, after all its work is done, and
    ``torchrun`` reports a failure. So what is registered for the end is run, and the taking down is left out.
    """
    if world_size() == 1:
        return
    PartialState().destroy_process_group()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def check_distributed(recipe: Recipe) -> None:
    """Raise ``UserError`` where the recipe's way of sharing the work cannot be had."""
    if recipe.distributed == "ddp":
        return
    if world_size() == 1 and recipe.distributed == "fsdp":
        raise UserError(
            "distributed=fsdp needs several processes: start with torchrun --nproc_per_node N -m igva train …, "
            "or set distributed=ddp"
        )
    if recipe.distributed in ("zero2", "zero3") and not is_deepspeed_available():
        raise UserError(f"distributed={recipe.distributed} needs the package deepspeed: pip install 'igva[deepspeed]'")
    if recipe.lora.quantize != "none":
        raise UserError("4-bit weights cannot be sharded: set distributed=ddp or lora.quantize=none")


def shares(recipe: Recipe) -> tuple[int, int]:
    """Samples at a time on one device, and how many of these make up its share of a step.

    Raises:
        UserError: the batch does not divide evenly over the devices.
    """
    optim, world = recipe.optim, world_size()
    if optim.batch_size % world:
        raise UserError(f"optim.batch_size {optim.batch_size} does not divide evenly over {world} processes")
    share = optim.batch_size // world
    micro = min(optim.micro_batch_size or share, share)
    if share % micro:
        raise UserError(
            f"optim.micro_batch_size {micro} does not divide the {share} samples that each of {world} processes takes"
        )
    return micro, share // micro


def deepspeed_config(recipe: Recipe) -> dict[str, Any] | None:
    """The packaged DeepSpeed settings of ``zero2`` or ``zero3``; None for the other ways."""
    if not recipe.distributed.startswith("zero"):
        return None
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        _compile_nothing()
    text = (resources.files("igva.train") / "deepspeed" / f"{recipe.distributed}.json").read_text()
    settings: dict[str, Any] = json.loads(text)
    return settings


def _compile_nothing() -> None:
    """Keep DeepSpeed from compiling its shared-memory operation when a training starts on CPUs.

    Only its inference uses the operation. Building it takes most of a minute, and a process killed meanwhile leaves a
    lock in the user's folder of extensions on which every later training would wait for ever.
    """
    deepspeed = importlib.import_module("deepspeed")
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def leave_deepspeed() -> None:
    """After training: models are built and loaded whole again. transformers would go on partitioning them."""
    unset_hf_deepspeed_config()


def accept_missing_frozen(engine: Any) -> None:
    """Let a DeepSpeed engine load checkpoints without the frozen parameters: these never change and are not saved."""
    load = engine.load_checkpoint
    engine.load_checkpoint = lambda *args, **kwargs: load(*args, **{**kwargs, "load_module_strict": False})


def shard(model: Any, recipe: Recipe) -> None:
    """FSDP2, in place: every block of the towers and of the language model is a unit, the rest is one more.

    Source: PyTorch's ``torch.distributed.fsdp.fully_shard``.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    mesh = init_device_mesh(device, (world_size(),))
    policy = MixedPrecisionPolicy()
    if recipe.optim.bf16:
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    options: dict[str, Any] = {"mesh": mesh, "mp_policy": policy}
    for block in blocks(model):
        fully_shard(block, **options)
    fully_shard(model, **options)


def blocks(model: Any) -> list[nn.Module]:
    """The transformer blocks of vision tower and language model."""
    found = []
    for part in (model.model.vision_tower, model.model.language_model):
        names = set(getattr(part, "_no_split_modules", None) or ())  # embeddings may be among them
        stacks = [module for module in part.modules() if isinstance(module, nn.ModuleList)]
        found += [block for stack in stacks for block in stack if type(block).__name__ in names]
    return found


_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def whole_optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """A sharded optimizer's state, by parameter name; empty but on the first process. All must call this."""
    return get_optimizer_state_dict(model, optimizer, options=_WHOLE)


def restore_optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Spread a whole optimizer state over the devices again. All must call this with the same state."""
    set_optimizer_state_dict(model, optimizer, state, options=StateDictOptions(full_state_dict=True))
