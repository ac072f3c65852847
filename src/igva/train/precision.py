"""Which precision ``auto`` means: settled once, before anything is loaded."""

from __future__ import annotations

import dataclasses

import torch

from igva.train.arguments import Recipe


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 itself; where that is emulated it is many times slower than float32.

    On a CPU it is oneDNN that must take it: AVX-512 and AMX do, AVX2 does not.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return True
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def settle_precision(recipe: Recipe, device: torch.device, fast: bool | None = None) -> tuple[Recipe, dict[str, str]]:
    """Replace ``auto`` by what it means on a device; what the recipe says otherwise stays.

    Args:
        fast: whether the device multiplies bfloat16; default: asked of the device, which must then be there.

    Returns:
        The recipe with plain values, and what ``run.json`` says of each: the value, and why it was chosen.
    """
    fast = multiplies_bfloat16(device) if fast is None else fast
    kind = "CPU" if device.type == "cpu" else "GPU"
    why = f" (auto: this {kind} {'multiplies' if fast else 'does not multiply'} bfloat16)"
    model, optim, reasons = recipe.model, recipe.optim, {"dtype": "", "bf16": ""}
    if model.dtype == "auto":
        model, reasons["dtype"] = dataclasses.replace(model, dtype="bfloat16" if fast else "float32"), why
    if optim.bf16 == "auto":
        optim, reasons["bf16"] = dataclasses.replace(optim, bf16=fast), why
    reasons["dtype"] = model.dtype + reasons["dtype"]
    reasons["bf16"] = str(optim.bf16).lower() + reasons["bf16"]
    return dataclasses.replace(recipe, model=model, optim=optim), reasons
