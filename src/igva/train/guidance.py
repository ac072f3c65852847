"""How much the question moves the weights, seen from within a training step.

Letters: ``B`` pictures of a batch, ``N`` patches, ``K`` layer groups, ``E`` instruction width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from igva.model.fusion_base import Fusion, FusionOutput
from igva.model.vision_layers import VisionLayers


def total_variation(first: Tensor, second: Tensor) -> Tensor:
    """Half the L1 distance of weights, ``(…, K)`` each → ``(…)``: the share of weight that moved, 0 to 1."""
    return (first.double() - second.double()).abs().sum(dim=-1) / 2


@torch.no_grad()
def guidance(
    fusion: Fusion, layers: VisionLayers, instruction: Tensor, weights: Tensor, sources: Sequence[str]
) -> float | None:
    """Mean total variation, 0 to 1, between a picture's weights and those it gets with the question of another.

    The other is the next one in the batch whose source differs, or simply the next where all are of one source. The
    fusion runs whatever comes of it, since devices that share its parameters have to run it together.

    Args:
        layers, instruction: what the fusion read: ``B`` pictures, ``(B, E)``.
        weights: what it gave, ``(B, K)`` or ``(B, N, K)``.
        sources: of each picture's question.

    Returns:
        None for a single picture, or pictures that nobody asked about (``sources`` is shorter).
    """
    count = len(instruction)
    known = count > 1 and len(sources) == count
    order = [_partner(number, sources) if known else number for number in range(count)]
    others = fusion(layers, instruction[order]).weights
    return float(total_variation(weights.cpu(), others.cpu()).mean()) if known else None


def _partner(number: int, sources: Sequence[str]) -> int:
    behind = [(number + step) % len(sources) for step in range(1, len(sources))]
    return next((other for other in behind if sources[other] != sources[number]), behind[0])


class GuidanceProbe:
    """Keeps what a fusion read last, while it is wanted, and measures its guidance."""

    def __init__(self, fusion: Fusion):
        self.fusion = fusion
        self.wanted = False
        self._last: tuple[VisionLayers, Tensor, Tensor] | None = None
        fusion.register_forward_hook(self._keep, with_kwargs=True)

    def _keep(self, module: Any, args: Any, kwargs: Any, output: FusionOutput) -> None:
        given = dict(zip(("layers", "instruction"), args, strict=False)) | kwargs
        if self.wanted and given.get("instruction") is not None and output.weights is not None:
            self._last = given["layers"], given["instruction"], output.weights

    def measure(self, sources: Sequence[str]) -> float | None:
        """Of the last step; None where it gave no weights, or had one picture alone."""
        last, self._last, self.wanted = self._last, None, False
        return None if last is None else guidance(self.fusion, *last, sources)
