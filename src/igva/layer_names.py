"""What people call the layers of a vision encoder, one by one and in groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from igva.errors import UserError


def layer_names(config: Any) -> list[str] | None:
    """The names of the layers of a model's vision tower, layer 1 first; None where they have numbers only.

    Args:
        config: of the whole model. A tower that names its layers (``EnsembleVisionConfig`` does) has them in its
            config's ``layer_names``, as ``encoder.layer``.
    """
    names = getattr(config.vision, "layer_names", None)
    return None if names is None else list(names)


def layer_label(layer: int, names: Sequence[str] | None = None) -> str:
    """``layer 7``, or ``layer 7 (efficientnet.words)`` where layers have names: what options take stays in sight."""
    return f"layer {layer}" if names is None else f"layer {layer} ({_name(layer, names)})"


def group_label(group: Sequence[int], names: Sequence[str] | None = None) -> str:
    """A group of layers, on a line.

    ``[1, 2, 3]`` → ``layers 1-3``; ``[5]`` → ``layer 5``; gaps are spelt out. With names, encoder by encoder:
    ``dinov2.8-12 + efficientnet.3,words``.
    """
    if names is not None:
        encoders: dict[str, list[str]] = {}
        for name in dict.fromkeys(_name(layer, names) for layer in group):
            encoder, dot, own = name.rpartition(".")
            encoders.setdefault(encoder + dot, []).append(own)
        return " + ".join(encoder + _runs(layers) for encoder, layers in encoders.items())
    if len(group) == 1:
        return layer_label(group[0])
    if list(group) == list(range(group[0], group[-1] + 1)):
        return f"layers {group[0]}-{group[-1]}"
    return "layers " + ",".join(map(str, group))


def group_names(model: Any) -> list[str]:
    """The layer groups that a model's fusion weighs, in words.

    Raises:
        UserError: the fusion has no weights.
    """
    groups = model.model.fusion.layer_groups
    if not groups:
        raise UserError(
            f"fusion {model.config.fusion!r} has no layer weights to study: use a model with fusion igva, or another "
            "that weighs its layers"
        )
    names = layer_names(model.config)
    return [group_label(group, names) for group in groups]


def _name(layer: int, names: Sequence[str]) -> str:
    return names[max(layer, 1) - 1]  # hidden state 0 of a tower with names is layer 1 itself


def _runs(layers: Sequence[str]) -> str:
    """``["3", "4", "5", "8", "words"]`` → ``3-5,8,words``."""
    runs: list[list[str]] = []
    for layer in layers:
        before = runs[-1][-1] if runs else ""
        if layer.isdecimal() and before.isdecimal() and int(layer) == int(before) + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return ",".join(run[0] if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
