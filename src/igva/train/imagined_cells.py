"""Dense warm-up, imagined: on the photographed cells of some pictures, a class that is not there.

The words layer of a class is known without a picture of it. Shown in place of a photograph's own, with the class's name
as the word to learn, it teaches the projector the names of classes that no training picture shows.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from igva.data.imagined import Imagination, Imagined
from igva.errors import UserError
from igva.imagenet.classes import classes
from igva.model.vision_layers import VisionLayers

LEAST_SHARE = 0.2  # below, the picture's own words are the better answer
MEAN_PART = 0.75  # of a picture's photographed cells: all of them or half, as often


def read_photos(path: Path, image_root: Path, num_tokens: int) -> dict[Path, tuple[int, ...]]:
    """Picture → the cells that show a photograph; none where there is no such file.

    Raises:
        UserError: an entry is no list of cells, or names one that a picture does not have.
    """
    if not path.is_file():
        return {}
    photos = {}
    for name, entry in json.loads(path.read_text()).items():
        cells = entry.get("cells") if isinstance(entry, dict) else None
        if not isinstance(cells, list) or not all(isinstance(c, int) and 0 <= c < num_tokens for c in cells):
            raise UserError(f"{path}: {name} needs cells, a list of numbers from 0 to {num_tokens - 1}")
        if cells:
            photos[image_root / name] = tuple(sorted(cells))
    return photos


def class_words(count: int) -> list[str]:
    """What the cells of each class are to be called: its general name first, then its own where it has another.

    Raises:
        UserError: the words layer has another number of classes than the list.
    """
    words = [one.label if one.name in (None, one.label) else f"{one.name} {one.label}" for one in classes()]
    if len(words) != count:
        raise UserError(f"the words layer has {count} classes, the list of names {len(words)}: set warm_up.imagined=0")
    return words


@dataclass
class CellImaginer:
    """Imagines classes on the pictures of a batch.

    Attributes:
        imagination: what puts a class into layer means.
        photos: picture → its photographed cells.
        share: of these pictures, how many get a class each time they are seen.
        words: the class's word, per class.
        rng: what is drawn by lot.
    """

    imagination: Imagination
    photos: dict[Path, tuple[int, ...]]
    share: float
    words: Sequence[str]
    rng: random.Random

    def expected(self) -> float:
        """How many cells show a certain class in one pass over the pictures, on average."""
        return self.share * MEAN_PART * sum(map(len, self.photos.values())) / len(self.words)

    def __call__(
        self, pictures: Sequence[Path], means: VisionLayers, words: Tensor, numbers: dict[str, int]
    ) -> tuple[VisionLayers, Tensor, Tensor]:
        """A batch with classes imagined on some of its pictures.

        Args:
            means: of the pictures, ``(I, T, N, D)`` and ``(I, T, D)``; changed in place.
            words: the number of each cell's word, ``(I, N)``; changed in place.
            numbers: word → its number.

        Returns:
            Both, and which cells are imagined, ``(I, N)`` of bool.
        """
        which = torch.zeros_like(words, dtype=torch.bool)
        for i, picture in enumerate(pictures):
            photographed = self.photos.get(picture)
            if not photographed or self.rng.random() >= self.share:
                continue
            imagined = self._drawn(photographed, side=int(words.shape[1] ** 0.5))
            changed = self.imagination(VisionLayers(means.patches[i : i + 1], means.descriptors[i : i + 1]), imagined)
            means.patches[i], means.descriptors[i] = changed.patches[0], changed.descriptors[0]
            cells = torch.tensor(imagined.cells)
            words[i, cells] = numbers[self.words[imagined.number]]
            which[i, cells] = True
        return means, words, which

    def _drawn(self, photographed: tuple[int, ...], side: int) -> Imagined:
        cells = photographed if self.rng.random() < 0.5 else connected_half(photographed, side, self.rng)
        return Imagined(self.rng.randrange(len(self.words)), self.rng.uniform(LEAST_SHARE, 1.0), cells)


def connected_half(cells: Sequence[int], side: int, rng: random.Random) -> tuple[int, ...]:
    """Half of some cells of a square grid, grown from a random one over its neighbours as far as these reach."""
    free, wanted = set(cells), (len(cells) + 1) // 2
    grown, border = set[int](), [rng.choice(sorted(free))]
    while border and len(grown) < wanted:
        cell = border.pop(rng.randrange(len(border)))
        if cell not in free:
            continue
        free.remove(cell)
        grown.add(cell)
        row, column = divmod(cell, side)
        border += [cell - side] * (row > 0) + [cell + side] * (row < side - 1)
        border += [cell - 1] * (column > 0) + [cell + 1] * (column < side - 1)
    return tuple(sorted(grown))
