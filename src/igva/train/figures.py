"""Figures of a run between two log lines, added up over micro-batches and devices."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor


class Figures:
    """Sums by name, since the last ``take``."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = defaultdict(float)
        self._weights: dict[str, tuple[Tensor, int]] = {}  # source -> sum of rows, rows

    def add(self, name: str, value: float) -> None:
        self._sums[name] += value

    def add_weights(self, sources: list[str], weights: Tensor) -> None:
        """Layer weights ``(I, K)`` of pictures from these sources."""
        for source, row in zip(sources, weights.detach().float().cpu(), strict=True):
            total, count = self._weights.get(source, (torch.zeros_like(row), 0))
            self._weights[source] = total + row, count + 1

    def take(self, steps: int) -> dict[str, float]:
        """Means per step over all devices, and layer weights per source; starts anew. All devices must call it.

        ``weights/SOURCE/K`` is the mean weight of group K, ``entropy/SOURCE`` that of the mean row, in nats (at most
        ln K).
        """
        mine: Any = (dict(self._sums), self._weights)
        sums: dict[str, float] = defaultdict(float)
        rows: dict[str, tuple[Tensor, int]] = {}
        for their_sums, their_rows in gather_object([mine]):
            for name, value in their_sums.items():
                sums[name] += value
            for source, (total, count) in their_rows.items():
                known, seen = rows.get(source, (torch.zeros_like(total), 0))
                rows[source] = known + total, seen + count
        self.__init__()  # type: ignore[misc]
        told = {name: round(value / steps, 5) for name, value in sorted(sums.items())}
        for source, (total, count) in sorted(rows.items()):
            mean = total / count
            for group, value in enumerate(mean.tolist(), start=1):
                told[f"weights/{source}/{group}"] = round(value, 4)
            told[f"entropy/{source}"] = round(float(torch.special.entr(mean).sum()), 4)
        return told
