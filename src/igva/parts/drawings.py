"""The tower's second encoder: EfficientNet-Lite0 tuned on drawings, shipped as its difference to the published one."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from igva.eight_bits import from_int8
from igva.parts.shipped import DRAWING_CLASSES, DRAWINGS


def drawing_classes() -> list[str]:
    """The names of its classes, in the order of its outputs."""
    names: list[str] = json.loads(DRAWING_CLASSES.read_text(encoding="utf-8"))
    return names


@torch.no_grad()
def drawing_state(published: dict[str, Tensor], file: Path = DRAWINGS) -> dict[str, Tensor]:
    """The published encoder's tensors, each moved by what ships, and the classifier of its words layer."""
    moved = from_int8(load_file(file))
    classifier = {name: moved.pop(name).float() for name in list(moved) if name.startswith("words.")}
    state = classifier | published
    for name, difference in moved.items():
        state[name] = published[name] + difference.float().view_as(published[name])
    return state
