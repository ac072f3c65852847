"""What a run trained, as one safetensors file: fusion, projector, the language model or its LoRA factors.

Names are those of the model without its ``model.`` prefix; a LoRA pair stands as ``NAME.lora_A`` and ``NAME.lora_B``
of the linear layer it adds to. The file's metadata holds the LoRA scale. A matrix in 8 bits has its scales beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from igva.eight_bits import ROW_SCALE, from_int8
from igva.errors import UserError, first_line
from igva.files import new_file

TRAINED_FILE = "trained.safetensors"
_PREFIX = "model."
_OTHER_ADAPTERS = "{} was trained with other adapters: give the same lora.rank and lora.alpha"
_LORA = {".lora_A.default.weight": ".lora_A", ".lora_B.default.weight": ".lora_B"}  # PEFT's names → ours


def trained_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Every trainable parameter of the model, by its name in the file, whole and on the CPU.

    Where devices share the parameters, each of them must call this.
    """
    return {
        _file_name(name): _whole(parameter).cpu().contiguous()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def _whole(parameter: Tensor) -> Tensor:
    """A parameter, put together where it is spread over devices."""
    if isinstance(parameter, DTensor):
        return parameter.full_tensor().detach()
    if hasattr(parameter, "ds_id"):  # ZeRO-3
        from deepspeed import zero

        with zero.GatheredParameters([parameter]):
            return parameter.detach().clone()
    return parameter.detach()


def _file_name(name: str) -> str:
    name = name.removeprefix(_PREFIX)
    for theirs, ours in _LORA.items():
        if name.endswith(theirs):
            return name.removesuffix(theirs) + ours
    return name


def save_trained(
    model: nn.Module, path: Path, lora_scale: float, dtype: torch.dtype | None = None, *, write: bool = True
) -> None:
    """Write the trainable parameters: to a temporary name, flushed, renamed.

    Args:
        dtype: round to this first; default: as they are.
        write: False on all devices but one, which help to gather only.
    """
    tensors = {name: value.to(dtype) if dtype else value for name, value in trained_tensors(model).items()}
    if not write:
        return
    with new_file(path) as part:
        save_file(tensors, part, metadata={"format": "pt", "lora_scale": repr(lora_scale)})


def read_trained(path: Path) -> tuple[dict[str, Tensor], float]:
    """Tensors by name, and the LoRA scale.

    Raises:
        UserError: there is no such file, or it is damaged.
    """
    with _opened(path) as file:
        scale = _scale(file)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    return from_int8(tensors), scale


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A safetensors file. Raises ``UserError``: there is none, or it is damaged."""
    if not path.is_file():
        raise UserError(f"{path} does not exist: run the stage before this one first, or name another folder")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise UserError(f"{path} is damaged ({first_line(error)}): copy it again") from error


def _scale(file: Any) -> float:
    return float((file.metadata() or {}).get("lora_scale", 0.0))


def check_trained(model: nn.Module, path: Path, adapters: tuple[int, float] | None) -> None:
    """See that ``apply_trained``, and with adapters ``restore_lora``, will take a file; reads its header alone.

    Args:
        model: may be on the meta device, and without adapters.
        adapters: rank and scale that the model will have; None where factors are folded in.

    Raises:
        UserError: no such file, or it does not fit.
    """
    with _opened(path) as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (no mapping)
        scale = _scale(file)
    parameters = {_file_name(name): tuple(parameter.shape) for name, parameter in model.named_parameters()}
    for name, shape in shapes.items():
        if name.endswith((ROW_SCALE, ".lora_B")):
            continue
        base, _, kind = name.rpartition(".")
        if kind == "lora_A":
            if adapters and (shape[0], scale) != adapters:
                raise UserError(_OTHER_ADAPTERS.format(path))
            name, shape = f"{base}.weight", (shapes.get(f"{base}.lora_B", (0,))[0], shape[1])
        if parameters.get(name) != shape:
            raise _misfit(path, name, shape)


def _misfit(path: Path, name: str, shape: tuple[int, ...]) -> UserError:
    return UserError(f"{path} does not fit this model: {name} has no counterpart of shape {shape}")


@torch.no_grad()
def restore_trained(model: nn.Module, path: Path) -> None:
    """Put the file's values back into a model that is set up for training in the same way (to resume).

    Raises:
        UserError: names differ.
    """
    tensors, _ = read_trained(path)
    parameters = {_file_name(name): p for name, p in model.named_parameters() if p.requires_grad}
    if parameters.keys() != tensors.keys():
        odd = sorted(parameters.keys() ^ tensors.keys())
        raise UserError(f"{path} was made by another recipe: {odd[0]} is in one of the two only")
    for name, value in tensors.items():
        target = parameters[name]
        if isinstance(target, DTensor):
            value = distribute_tensor(value.to(target.device), target.device_mesh, target.placements)
        target.copy_(value)


@torch.no_grad()
def restore_lora(model: nn.Module, path: Path, lora_scale: float) -> None:
    """Start a model's adapters from the file's factors, where it has any.

    Args:
        lora_scale: of the adapters in the model.

    Raises:
        UserError: the factors are of another rank, scale or model.
    """
    tensors, scale = read_trained(path)
    factors = {name: value for name, value in tensors.items() if name.endswith((".lora_A", ".lora_B"))}
    parameters = {_file_name(name): parameter for name, parameter in model.named_parameters()}
    for name, value in factors.items():
        target = parameters.get(name)
        if target is None or target.shape != value.shape or scale != lora_scale:
            raise UserError(_OTHER_ADAPTERS.format(path))
        target.copy_(value)


@torch.no_grad()
def apply_trained(model: nn.Module, path: Path, *, lora: bool = True) -> None:
    """Load what a run trained into a plain model; LoRA factors are added to the weights they belong to.

    Args:
        lora: False leaves the factors out (``restore_lora`` takes them over as factors).

    Raises:
        UserError: the file does not fit the model.
    """
    tensors, scale = read_trained(path)
    parameters = {_file_name(name): parameter for name, parameter in model.named_parameters()}
    for name, value in tensors.items():
        base, _, kind = name.rpartition(".")
        if kind == "lora_B" or (kind == "lora_A" and not lora):
            continue
        if kind == "lora_A":
            value = scale * (tensors[f"{base}.lora_B"].float() @ value.float())
        target = parameters.get(f"{base}.weight" if kind == "lora_A" else name)
        if target is None or target.shape != value.shape:
            raise _misfit(path, name, tuple(value.shape))
        target.copy_(target + value if kind == "lora_A" else value)
