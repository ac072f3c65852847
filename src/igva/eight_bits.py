"""Matrices in 8 bits: how what ships beside the code stays small."""

from __future__ import annotations

import torch
from torch import Tensor

ROW_SCALE = ".row_scale"  # of a matrix NAME in 8 bits, beside it as NAME.row_scale


def to_int8(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Matrices in 8 bits, one scale per row; everything else in bfloat16. What it takes: a quarter of float32.

    No value is off by more than 0.4 % of the largest of its row.
    """
    small = {}
    for name, value in tensors.items():
        if value.dim() != 2:
            small[name] = value.to(torch.bfloat16).contiguous()
            continue
        row_scale = (value.float().abs().amax(dim=1) / 127).clamp_min(torch.finfo(torch.bfloat16).tiny)
        row_scale = row_scale.to(torch.bfloat16)
        steps = (value.float() / row_scale.float()[:, None]).round().clamp(-127, 127)
        small |= {name: steps.to(torch.int8).contiguous(), name + ROW_SCALE: row_scale}
    return small


def from_int8(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """What ``to_int8`` made small, in float32; other tensors stay as they are."""
    return {
        name: value.float() * tensors[name + ROW_SCALE].float()[:, None] if value.dtype == torch.int8 else value
        for name, value in tensors.items()
        if not name.endswith(ROW_SCALE)
    }
