"""A picture in the making and what is known about it: 224×224 RGB, with the word of each cell of an 8×8 grid.

Every random choice comes from the ``random.Random`` handed in; nothing iterates over a set, so the
same stream gives the same bytes in every process.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from igva.probe import backdrops
from igva.probe.edition import Split

SIZE = 224  # pixels a side
GRID = 8  # cells a side
CELL = SIZE // GRID  # 28 pixels
MARGIN = 6  # pixels kept free at the border, so that pixel (0, 0) is always background
COVERED = 0.35  # share of a cell that a thing must cover to give the cell its word
BACKDROP = "background"  # the word of cells before which nothing is and that have no one colour
CUTOUTS = "photographs"  # the style that draws with photographs, and with the mixture what there is none of

# Far enough apart that the jitter (±10 per channel) and the gradient (±8) never cross a name.
COLORS: dict[str, tuple[int, int, int]] = {
    "red": (214, 38, 38),
    "orange": (245, 132, 28),
    "yellow": (250, 218, 48),
    "green": (46, 158, 68),
    "blue": (40, 92, 214),
    "purple": (124, 52, 170),
    "pink": (250, 156, 196),
    "brown": (122, 76, 42),
    "black": (20, 20, 20),
    "white": (246, 246, 246),
    "gray": (142, 142, 142),
}

Box = tuple[int, int, int, int]
Color = tuple[int, int, int]


@dataclass
class Thing:
    """Something drawn: an object, shape, word, bar or whatever ``kind`` a task draws.

    ``box`` is (left, top, right, bottom) in pixels around what is visible, ``area`` the number of
    visible pixels, ``value`` a bar's height; ``photo``: it is cut out of a photograph.
    """

    kind: str
    name: str
    color: str | None
    box: Box
    area: float
    value: int = 0
    photo: bool = False

    @property
    def center(self) -> tuple[float, float]:
        """(x, y) in pixels."""
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2

    @property
    def sides(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.box[2] - self.box[0], self.box[3] - self.box[1]


@dataclass
class Scene:
    """A picture in the making and what is known about it; ``background`` is a colour's name or ``BACKDROP``."""

    rng: random.Random
    split: Split
    style: str
    background: str
    image: Image.Image
    things: list[Thing] = field(default_factory=list)
    coverage: list[tuple[str, NDArray[np.float64]]] = field(default_factory=list)
    subject: str | None = None  # what the copies of a counting scene are
    alone: bool = False  # nothing else can fairly be asked about it: things are hidden, tiny or drawn twice
    photographed: bool = False  # the background is a photograph

    def of_kind(self, kind: str) -> list[Thing]:
        """The things of one kind, in drawing order."""
        return [thing for thing in self.things if thing.kind == kind]

    def add(self, thing: Thing, mask: Image.Image, word: str) -> None:
        """Note a thing, and under ``mask`` ("L", its top left is the box's) the cells that have its word."""
        self.things.append(thing)
        self.coverage.append((word, _cover(mask, thing.box[:2])))

    def names(self) -> tuple[str, ...]:
        """The names of the objects, in alphabetical order (drawing order would give answers away)."""
        return tuple(sorted(thing.name for thing in self.of_kind("object")))

    def only_name(self) -> str | None:
        """The name of the one thing shown, or of all its copies; None where there is another, or no object."""
        names = {thing.name for thing in self.things}
        return self.things[0].name if len(names) == 1 and self.of_kind("object") else None

    def single_shapes(self) -> list[Thing]:
        """Shapes that occur once."""
        return _once(self.of_kind("shape"))

    def unlike_things(self) -> list[Thing]:
        """Objects, else shapes, whose name occurs once."""
        return _once(self.of_kind("object") or self.of_kind("shape"))

    def cells(self) -> list[str]:
        """64 words, row by row: the thing that covers at least ``COVERED`` of the cell (the one that
        covers most), else the background's colour."""
        owners = self.owners()
        return [self.background if owner is None else self.coverage[owner][0] for owner in owners]

    def owners(self) -> list[int | None]:
        """For each of the 64 cells the number of the thing that gives it its word, None for background."""
        owners = np.full((GRID, GRID), -1)
        best = np.zeros((GRID, GRID))
        for number, (_, share) in enumerate(self.coverage):
            # A thin thing (a spoon) may reach the share nowhere: its fullest cell still names it.
            wins = (share > best) & (share >= min(COVERED, float(share.max())))
            owners[wins] = number
            best[wins] = share[wins]
        return [None if owner < 0 else int(owner) for owner in owners.ravel()]

    def photo_cells(self) -> list[int]:
        """The cells (0-63) that show a photograph: of a thing, or of the background."""
        return [
            cell
            for cell, owner in enumerate(self.owners())
            if (self.photographed if owner is None else self.things[owner].photo)
        ]


def jitter(rng: random.Random, color: str) -> Color:
    """A shade of a named colour: lighter or darker by up to 6, each channel moved by up to 4 more (1
    where there is no hue: a tinted gray has another name)."""
    shift, hue = rng.randint(-6, 6), 1 if color in ("black", "white", "gray") else 4
    red, green, blue = (min(255, max(0, value + shift + rng.randint(-hue, hue))) for value in COLORS[color])
    return red, green, blue


def distance(a: Sequence[float], b: Sequence[float]) -> float:
    """Euclidean distance of two RGB colours, weighted for how green, red and blue are seen."""
    weights = (0.9, 1.2, 0.7)
    return math.sqrt(sum(w * (x - y) ** 2 for w, x, y in zip(weights, a, b, strict=True)))


def new_scene(rng: random.Random, split: Split, background: str | None = None) -> Scene:
    """An empty picture: one named colour, plain or with a soft gradient.

    The red value of pixel (0, 0) is the split's number modulo 4: pictures of two splits differ by
    construction, whatever else their streams draw.
    """
    background = background or rng.choice(list(COLORS))
    base = np.array(jitter(rng, background), dtype=np.float64)
    pixels = np.broadcast_to(base, (SIZE, SIZE, 3))
    if rng.random() < 0.5:
        angle, reach = rng.uniform(0, 2 * math.pi), rng.uniform(3, 8)
        axis = np.linspace(-1, 1, SIZE)
        ramp = axis[None, :] * math.cos(angle) + axis[:, None] * math.sin(angle)
        pixels = pixels + (ramp * reach / 1.4143)[..., None]
    image = Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8), "RGB")
    return Scene(rng, split, rng.choice(split.styles), background, _signed(image, split))


def _signed(image: Image.Image, split: Split) -> Image.Image:
    """With the split's number in the red value of pixel (0, 0)."""
    red, green, blue = image.getpixel((0, 0))  # type: ignore[misc]
    image.putpixel((0, 0), (red // 4 * 4 + split.number, green, blue))
    return image


def photo_scene(rng: random.Random, split: Split, style: str = CUTOUTS) -> Scene:
    """An empty picture for photographs: mostly one itself, else a colour, or one that goes over into another."""
    chance = rng.random()
    if chance >= 0.8:
        scene = new_scene(rng, split)
        scene.style = style
        return scene
    image = backdrops.photographed(rng, SIZE) if chance < 0.7 else backdrops.shaded(rng, SIZE)
    return Scene(rng, split, style, BACKDROP, _signed(image, split), photographed=chance < 0.7)


def wear(scene: Scene) -> None:
    """Wear a picture that has to do with photographs, as ``backdrops.worn`` does; others stay as they are."""
    if scene.background == BACKDROP or scene.style == CUTOUTS:
        scene.image = _signed(backdrops.worn(scene.rng, scene.image, scene.background == BACKDROP), scene.split)


def _cover(mask: Image.Image, corner: tuple[int, int]) -> NDArray[np.float64]:
    """Share of each cell (8, 8) under a mask ("L") placed with its top left at ``corner``."""
    full = Image.new("L", (SIZE, SIZE))
    full.paste(mask, corner)
    solid = np.asarray(full) > 127
    share: NDArray[np.float64] = solid.reshape(GRID, CELL, GRID, CELL).mean(axis=(1, 3))
    return share


def _once(things: list[Thing]) -> list[Thing]:
    return [thing for thing in things if sum(other.name == thing.name for other in things) == 1]


def side_of(axis: str, thing: Thing, other: Thing) -> str | None:
    """On which side of ``other`` ``thing`` clearly lies along an axis ("horizontal", "vertical"); None where it is not
    clear."""
    at = 0 if axis == "horizontal" else 1
    gap = thing.center[at] - other.center[at]
    if abs(gap) < 45:
        return None
    return ("left", "right")[gap > 0] if at == 0 else ("above", "below")[gap > 0]


def clearly_larger(thing: Thing, other: Thing) -> bool:
    """Longer side by 1.3 and visible area by 1.5: nobody would argue."""
    return max(thing.sides) >= 1.3 * max(other.sides) and thing.area >= 1.5 * other.area
