"""Imagined photographs: some cells show the words layer of a class that is not in the picture.

A tower may have a *words layer*: what a classifier sees in each cell, as words. What it would say of a class is known
without a picture of it, so that a model can learn to name classes of which no training picture is there. A record says
so with ``"imagined": {"class": k, "share": s, "cells": [c, …]}``.

Letters: ``I`` pictures, ``T`` taps, ``N`` patches, ``D`` vision width, ``C`` classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from igva.data.records import Record
from igva.errors import UserError
from igva.model.modeling_igva import IgvaForConditionalGeneration
from igva.model.vision_layers import Tap, VisionLayers

FIELD = "imagined"
REMEDY = "leave them out with data.imagined=false"


@dataclass(frozen=True)
class Imagined:
    """What is imagined on a picture.

    Attributes:
        number: of the class, from 0.
        share: how much of the cells it takes, above 0 and at most 1; the rest stays their own.
        cells: which, row by row from 0; ascending, at least one.
    """

    number: int
    share: float
    cells: tuple[int, ...]


def imagined_of(record: Record) -> Imagined | None:
    """What a record imagines, or None.

    Raises:
        UserError: it is malformed, or the record has not exactly one picture.
    """
    entry = record.extra.get(FIELD)
    if entry is None:
        return None
    if len(record.images) != 1:
        raise UserError(f"sample {record.id}: it imagines a class on {len(record.images)} pictures: give it one")
    values: list[Any] = [entry.get(key) for key in ("class", "share", "cells")] if isinstance(entry, dict) else [0] * 3
    number, share, cells = values
    numbers = isinstance(cells, list) and bool(cells) and all(map(_whole, cells))
    if not (numbers and _whole(number) and isinstance(share, (int, float)) and 0 < share <= 1):
        raise UserError(
            f"sample {record.id}: its imagined is not a class (a number), a share (above 0, at most 1) and cells "
            f"(a list of numbers): mend it, or {REMEDY}"
        )
    return Imagined(number, float(share), tuple(sorted(set(cells))))


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def without_imagined(records: Iterable[Record]) -> list[Record]:
    """The records that show nothing but their pictures."""
    return [record for record in records if FIELD not in record.extra]


class Imagination:
    """Puts a class that is not there into the layer means of a picture.

    Args:
        taps: the layer sets whose means are given.
        layer: the absolute number of the tower's words layer; a tap that consists of it alone is changed.
        vectors: that layer's output for each class alone with full confidence, ``(C, D)``.

    Raises:
        UserError: no tap consists of the words layer alone.
    """

    def __init__(self, taps: Sequence[Tap], layer: int, vectors: Tensor):
        self.tap_numbers = [number for number, tap in enumerate(taps) if tuple(tap) == (layer,)]
        if not self.tap_numbers:
            raise UserError(
                f"the samples imagine classes, but no group of the fusion is the words layer ({layer}) alone: "
                f"{REMEDY}, or name the group in model.fusion_kwargs"
            )
        self.vectors = vectors.detach().float().cpu()

    @classmethod
    def of(cls, model: IgvaForConditionalGeneration) -> Imagination:
        """That of a model's tower and fusion.

        Raises:
            UserError: the tower has no words layer, or no tap consists of it alone.
        """
        words_layer = getattr(model.model.vision_tower, "words_layer", None)
        words: tuple[int, Tensor] | None = words_layer() if callable(words_layer) else None
        if words is None:
            raise UserError(f"the samples imagine classes, but the vision tower has no words layer: {REMEDY}")
        return cls(model.model.fusion.taps, *words)

    @property
    def num_classes(self) -> int:
        """``C``."""
        return self.vectors.shape[0]

    def check(self, imagined: Imagined, cells: int, name: str) -> None:
        """Raise ``UserError`` where there is no such class, or no such cell among the ``cells`` of a picture."""
        if imagined.number >= self.num_classes:
            raise UserError(
                f"{name} imagines class {imagined.number}: the words layer has {self.num_classes}; {REMEDY}"
            )
        if imagined.cells[-1] >= cells:
            raise UserError(f"{name} imagines on cell {imagined.cells[-1]}: a picture has {cells}; {REMEDY}")

    def __call__(self, layers: VisionLayers, imagined: Imagined) -> VisionLayers:
        """Imagine a class on some cells of pictures.

        Args:
            layers: ``(I, T, N, D)`` and ``(I, T, D)``, as the tower gives them: not normalised.

        Returns:
            The same in new tensors: at these cells ``(1 - share) · own + share · class``. A tap's descriptor, which is
            the mean of its patches, moves as their mean does.
        """
        patches, descriptors = layers.patches.clone(), layers.descriptors.clone()
        cells = torch.tensor(imagined.cells)
        for tap in self.tap_numbers:
            own = patches[:, tap, cells].float()  # (I, cells, D)
            change = imagined.share * (self.vectors[imagined.number] - own)
            patches[:, tap, cells] = (own + change).to(patches.dtype)
            moved = descriptors[:, tap].float() + change.sum(dim=1) / patches.shape[2]
            descriptors[:, tap] = moved.to(descriptors.dtype)
        return VisionLayers(patches, descriptors)
