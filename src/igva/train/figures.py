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
        self._means: dict[str, tuple[float, int]] = {}  # name -> sum over pictures, pictures

    def add(self, name: str, value: float) -> None:
        self._sums[name] += value

    def add_mean(self, name: str, value: float, count: int) -> None:
        """A mean over so many pictures."""
        total, known = self._means.get(name, (0.0, 0))
        self._means[name] = total + value * count, known + count

    def add_weights(self, sources: list[str], weights: Tensor) -> None:
        """Layer weights ``(I, K)`` of pictures from these sources."""
        for source, row in zip(sources, weights.detach().float().cpu(), strict=True):
            total, count = self._weights.get(source, (torch.zeros_like(row), 0))
            self._weights[source] = total + row, count + 1

    def take(self, steps: int) -> dict[str, float]:
        """Means per step or picture over all devices, and layer weights per source; starts anew. All must call it.

        ``weights/SOURCE/K`` is the mean weight of group K, ``entropy/SOURCE`` that of the mean row, in nats (at most
        ln K).
        """
        mine: Any = (dict(self._sums), self._means, self._weights)
        sums: dict[str, float] = defaultdict(float)
        rows: dict[str, tuple[Tensor, int]] = {}
        means: dict[str, tuple[float, int]] = {}
        for their_sums, their_means, their_rows in gather_object([mine]):
            for name, value in their_sums.items():
                sums[name] += value
            for name, (part, pictures) in their_means.items():
                whole, before = means.get(name, (0.0, 0))
                means[name] = whole + part, before + pictures
            for source, (total, count) in their_rows.items():
                known, seen = rows.get(source, (torch.zeros_like(total), 0))
                rows[source] = known + total, seen + count
        self.__init__()  # type: ignore[misc]
        logged = {name: round(value / steps, 5) for name, value in sorted(sums.items())}
        logged |= {name: round(whole / pictures, 5) for name, (whole, pictures) in sorted(means.items())}
        for source, (total, count) in sorted(rows.items()):
            mean = total / count
            for group, value in enumerate(mean.tolist(), start=1):
                logged[f"weights/{source}/{group}"] = round(value, 4)
            logged[f"entropy/{source}"] = round(float(torch.special.entr(mean).sum()), 4)
        return logged
