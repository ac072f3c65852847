"""Draws pictures: 224×224 RGB, with the word that belongs to each cell of an 8×8 grid.

Every random choice comes from the ``random.Random`` handed in; nothing iterates over a set, so the
same stream gives the same bytes in every process.
"""

import functools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance

from igva.probe import backdrops, hands, pack
from igva.probe.vocabulary import COLORS, SHAPES, Split

SIZE = 224  # pixels a side
GRID = 8  # cells a side
CELL = SIZE // GRID  # 28 pixels
MARGIN = 6  # pixels kept free at the border, so that pixel (0, 0) is always background
COVERED = 0.35  # share of a cell that a thing must cover to give the cell its word
BACKDROP = "background"  # the word of cells before which nothing is and that have no one colour
CUTOUTS = "photographs"  # the style that draws with photographs, and with the mixture what there is none of
PHOTOS = 0.35  # share of the training pictures of a task that may have photographs, beside those that are all of them
CONTRAST = 55.0  # least mean distance of a thing's pixels from what is behind them

Box = tuple[int, int, int, int]
Color = tuple[int, int, int]


@dataclass
class Thing:
    """Something drawn: an object, shape, word or bar.

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


def handed_on(scene: Scene) -> None:
    """Wear a picture that has to do with photographs, as ``backdrops.worn`` says; others stay as they are."""
    if scene.background == BACKDROP or scene.style == CUTOUTS:
        scene.image = _signed(backdrops.worn(scene.rng, scene.image, scene.background == BACKDROP), scene.split)


def _cover(mask: Image.Image, corner: tuple[int, int]) -> NDArray[np.float64]:
    """Share of each cell (8, 8) under a mask ("L") placed with its top left at ``corner``."""
    full = Image.new("L", (SIZE, SIZE))
    full.paste(mask, corner)
    solid = np.asarray(full) > 127
    share: NDArray[np.float64] = solid.reshape(GRID, CELL, GRID, CELL).mean(axis=(1, 3))
    return share


def place(scene: Scene, thing: Thing, mask: Image.Image, word: str) -> None:
    """Note a thing and the cells it covers."""
    scene.things.append(thing)
    scene.coverage.append((word, _cover(mask, thing.box[:2])))


def scatter(rng: random.Random, sides: Sequence[int]) -> list[Box]:
    """Non-overlapping squares with these sides (pixels), anywhere; shrinks them where they do not fit."""
    gap = 5
    wanted = [float(side) for side in sides]
    for attempt in range(200):
        boxes: list[Box] = []
        for side in (round(value) for value in wanted):
            for _ in range(40):
                x = rng.randint(MARGIN, SIZE - MARGIN - side)
                y = rng.randint(MARGIN, SIZE - MARGIN - side)
                if all(
                    x + side + gap <= left or right + gap <= x or y + side + gap <= top or bottom + gap <= y
                    for left, top, right, bottom in boxes
                ):
                    boxes.append((x, y, x + side, y + side))
                    break
            else:
                break
        if len(boxes) == len(wanted):
            return boxes
        if attempt % 4 == 3:
            wanted = [value * 0.95 for value in wanted]
    raise AssertionError(f"no room for squares of {list(sides)} pixels")


def stands_out(scene: Scene, name: str) -> bool:
    """Whether there are drawings of ``name`` to choose from on the scene's background."""
    return bool(choice_of(scene, name))


def choice_of(scene: Scene, name: str) -> Sequence[pack.Drawing]:
    """The drawings of a name in the scene's style: all of them if each differs from the background's colour, else
    none; where the style mixes sets, those that differ."""
    found = _drawings(scene, name)
    if scene.background == BACKDROP:
        return found
    back = COLORS[scene.background]
    clear = [made for made in found if distance(made.mean, back) > 70]
    return clear if scene.style in (pack.MIXED, CUTOUTS) or len(clear) == len(found) else ()


def _drawings(scene: Scene, name: str) -> Sequence[pack.Drawing]:
    if scene.style == CUTOUTS:
        return pack.photographs(name) if name in pack.photograph_names() else pack.drawings(pack.MIXED, name)
    return pack.drawings(scene.style, name)


@functools.cache
def _one_coloured(name: str) -> frozenset[int]:
    """The ids of a name's drawings that have one colour (drawings are kept, so that an id stays a drawing's)."""
    if name not in pack.nouns():
        return frozenset()
    return frozenset(id(made) for style in pack.SILHOUETTES for made in pack.drawings(style, name))


def _contrast(sprite: Image.Image, behind: Image.Image) -> float:
    """Mean distance between the visible pixels of a sprite (RGBA) and those behind it, of the same size."""
    top, back = (np.asarray(image, dtype=np.float64) for image in (sprite, behind))
    solid = top[..., 3] > 127
    if not solid.any():
        return 0.0
    apart = ((top[..., :3] - back)[solid] ** 2) @ np.array([0.9, 1.2, 0.7])
    return float(np.sqrt(apart).mean())


def _by_any_hand(scene: Scene, name: str, first: pack.Drawing, box: Box) -> Image.Image:
    """A drawing or photograph of a name as it shall look in training: by another hand, where its style mixes hands,
    and again, of another drawing, until it stands out from what is behind the box."""
    rng, side, drawing = scene.rng, box[2] - box[0], first
    if scene.style not in (pack.MIXED, CUTOUTS):
        return first.image
    behind = scene.image.crop(box)
    paper = tuple(round(value) for value in np.asarray(behind, dtype=np.float64).mean(axis=(0, 1)))
    found: list[tuple[float, Image.Image]] = []
    for _ in range(6):
        sprite = drawing.image
        if scene.style == CUTOUTS and name in pack.photograph_names():
            sprite = hands.reshaped(rng, sprite, side)
        else:
            if id(drawing) in _one_coloured(name):
                sprite = hands.silhouette(rng, sprite, paper)
            sprite = hands.render(rng, sprite, paper, side)
        found.append((_contrast(sprite, behind.resize(sprite.size)), sprite))
        if found[-1][0] >= CONTRAST:
            break
        drawing = rng.choice(choice_of(scene, name) or [first])
    return max(found, key=lambda pair: pair[0])[1]


def draw_objects(scene: Scene, names: Sequence[str], boxes: Sequence[Box]) -> None:
    """Draw the names into the boxes, the longer side filling it; equal names get the same drawing."""
    rng = scene.rng
    chosen: dict[str, pack.Drawing] = {}
    looks: dict[str, Image.Image] = {}
    for name, (left, top, right, bottom) in zip(names, boxes, strict=True):
        # Drawn from all of the style where a caller has not asked whether the name stands out.
        drawing = chosen.setdefault(name, rng.choice(choice_of(scene, name) or _drawings(scene, name)))
        if name not in looks:
            box = (left, top, right, bottom)
            looks[name] = _by_any_hand(scene, name, drawing, box) if scene.split.varied else drawing.image
        sprite = looks[name]
        if rng.random() < 0.5:
            sprite = sprite.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if rng.random() < 0.6:
            sprite = sprite.rotate(rng.uniform(-14, 14), Image.Resampling.BICUBIC, expand=True)
            sprite = hands.trimmed(sprite)
        side = right - left
        scale = side / max(sprite.size)
        width, height = (max(1, round(length * scale)) for length in sprite.size)
        sprite = sprite.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=2.0)
        alpha = sprite.getchannel("A")
        color = ImageEnhance.Brightness(sprite.convert("RGB")).enhance(rng.uniform(0.88, 1.1))
        x, y = left + (side - width) // 2, top + (bottom - top - height) // 2
        scene.image.paste(color, (x, y), alpha)
        area = float((np.asarray(alpha) > 127).sum())
        photo = scene.style == CUTOUTS and name in pack.photograph_names()
        thing = Thing("object", name, None, (x, y, x + width, y + height), area, photo=photo)
        place(scene, thing, alpha, name)


def _outline(shape: str) -> list[tuple[float, float]]:
    """Corners of a shape in the unit square."""
    if shape == "square":
        return [(0.05, 0.05), (0.95, 0.05), (0.95, 0.95), (0.05, 0.95)]
    if shape == "triangle":
        return [(0.5, 0.06), (0.98, 0.92), (0.02, 0.92)]
    if shape == "diamond":
        return [(0.5, 0.0), (0.86, 0.5), (0.5, 1.0), (0.14, 0.5)]
    if shape == "star":
        turns = [(-90 + 36 * i, 0.52 if i % 2 == 0 else 0.22) for i in range(10)]
        return [(0.5 + r * math.cos(math.radians(a)), 0.53 + r * math.sin(math.radians(a))) for a, r in turns]
    if shape == "heart":
        steps = [2 * math.pi * i / 60 for i in range(60)]
        return [
            (
                0.5 + 0.5 * math.sin(t) ** 3,
                0.46 - (13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 33,
            )
            for t in steps
        ]
    steps = [2 * math.pi * i / 72 for i in range(72)]
    return [(0.5 + 0.48 * math.cos(t), 0.5 + 0.48 * math.sin(t)) for t in steps]


def shape_mask(rng: random.Random, shape: str, side: int) -> Image.Image:
    """A shape turned by a few degrees inside a square of ``side`` pixels, not cropped ("L")."""
    zoom = 4  # drawn larger, then reduced: smooth edges
    turn = math.radians(rng.uniform(-10, 10) if shape != "diamond" else rng.uniform(-5, 5))
    points = []
    for x, y in _outline(shape):
        dx, dy = (x - 0.5) * 0.92, (y - 0.5) * 0.92
        points.append(
            (
                (0.5 + dx * math.cos(turn) - dy * math.sin(turn)) * side * zoom,
                (0.5 + dx * math.sin(turn) + dy * math.cos(turn)) * side * zoom,
            )
        )
    large = Image.new("L", (side * zoom, side * zoom))
    ImageDraw.Draw(large).polygon(points, fill=255)
    return large.reduce(zoom)


def draw_shapes(scene: Scene, shapes: Sequence[tuple[str, str]], boxes: Sequence[Box]) -> None:
    """Draw (shape, colour name) pairs into square boxes, turned by a few degrees."""
    rng = scene.rng
    for (shape, color), (left, top, right, _) in zip(shapes, boxes, strict=True):
        mask = shape_mask(rng, shape, right - left)
        seen = mask.getbbox() or (0, 0, *mask.size)
        mask = mask.crop(seen)
        box = (left + seen[0], top + seen[1], left + seen[2], top + seen[3])
        scene.image.paste(jitter(rng, color), box, mask)
        area = float((np.asarray(mask) > 127).sum())
        place(scene, Thing("shape", shape, color, box, area), mask, f"{color} {shape}")


def draw_word(scene: Scene, word: str, top: int, bottom: int) -> None:
    """Write ``word`` on one line between two heights (pixels), over 50-90 % of the width."""
    rng = scene.rng
    face = rng.choice(pack.font_files(scene.split.fonts))
    text = word.upper() if rng.random() < 0.5 else word
    width = rng.uniform(0.5, 0.9) * SIZE
    probe = pack.font(face, 100).getbbox(text)
    size = max(16, int(100 * min(width / (probe[2] - probe[0]), (bottom - top) / (probe[3] - probe[1]))))
    font = pack.font(face, size)
    left, up, right, down = (int(edge) for edge in font.getbbox(text))
    mask = Image.new("L", (right - left, down - up))
    ImageDraw.Draw(mask).text((-left, -up), text, font=font, fill=255)
    x = rng.randint(MARGIN, max(MARGIN, SIZE - MARGIN - mask.width))
    y = rng.randint(top, max(top, bottom - mask.height))
    ink = rng.choice([c for c in COLORS if distance(COLORS[c], COLORS[scene.background]) > 150])
    scene.image.paste(jitter(rng, ink), (x, y), mask)
    box = (x, y, x + mask.width, y + mask.height)
    # Letters are thin: a cell belongs to the word if the line's box covers it.
    thing = Thing("word", word, ink, box, float(mask.width * mask.height))
    place(scene, thing, mask.point([255] * 256), word)


def draw_chart(scene: Scene, bars: Sequence[tuple[str, int]]) -> None:
    """A bar chart of (colour name, value 1-9): axis, gridlines, bars standing on the axis."""
    rng = scene.rng
    draw = ImageDraw.Draw(scene.image)
    dark = distance(COLORS[scene.background], (0, 0, 0)) < 300
    line: Color = (235, 235, 235) if dark else (30, 30, 30)
    back = np.array(COLORS[scene.background])
    grid = tuple(int(value) for value in np.rint(back * 0.7 + np.array(line) * 0.3))
    left, right = rng.randint(22, 34), SIZE - rng.randint(12, 24)
    top, base = rng.randint(16, 28), SIZE - rng.randint(20, 32)
    unit = (base - top) / 9
    for value in range(1, 10):
        y = round(base - value * unit)
        draw.line([(left, y), (right, y)], fill=grid)
    slot = (right - left - 6) / len(bars)
    width = round(slot * rng.uniform(0.6, 0.8))
    for slot_number, (color, value) in enumerate(bars):
        x = round(left + 6 + slot * slot_number + (slot - width) / 2)
        y = round(base - value * unit)
        mask = Image.new("L", (width, base - y), 255)
        scene.image.paste(jitter(rng, color), (x, y), mask)
        box = (x, y, x + width, base)
        place(scene, Thing("bar", "bar", color, box, float(width * (base - y)), value), mask, color)
    draw.line([(left, top), (left, base), (right, base)], fill=line, width=2)


def pick_names(scene: Scene, count: int, avoid: Sequence[str] = (), countable: bool = False) -> list[str]:
    """``count`` names that stand out, none of them ``avoid`` or kin to it or to each other."""
    table = pack.nouns()
    chosen: list[str] = []
    everything = list(table)
    for _ in range(2000):
        if len(chosen) == count:
            return chosen
        name = scene.rng.choice(everything)
        if not pack.apart(name, [*avoid, *chosen]):
            continue
        if (countable and not table[name].countable) or not stands_out(scene, name):
            continue
        chosen.append(name)
    raise AssertionError(f"no names left beside {list(avoid)}")


def background_for(rng: random.Random, split: Split, name: str) -> Scene:
    """An empty picture on which ``name`` stands out."""
    for _ in range(200):
        scene = new_scene(rng, split)
        if stands_out(scene, name):
            return scene
    raise AssertionError(f"{name} stands out on no background")


def setting(rng: random.Random, split: Split, name: str | None = None) -> Scene:
    """An empty picture on which ``name``, if one is given, stands out; in training sometimes one for photographs."""
    if split.varied and rng.random() < PHOTOS:
        for _ in range(20):
            scene = photo_scene(rng, split, CUTOUTS if rng.random() < 0.85 else pack.MIXED)
            if name is None or stands_out(scene, name):
                return scene
    return new_scene(rng, split) if name is None else background_for(rng, split, name)


def side_of_one(rng: random.Random, split: Split, low: int, high: int) -> int:
    """The side in pixels of a thing that is alone; in training sometimes up to nine tenths of the picture's."""
    if split.varied and rng.random() < 0.35:
        return rng.randint(high, round(0.9 * SIZE))
    return rng.randint(low, high)


def shape_colors(scene: Scene, count: int, avoid: Sequence[str] = ()) -> list[str]:
    """``count`` different colour names, none the background's or in ``avoid``."""
    free = [color for color in COLORS if color != scene.background and color not in avoid]
    return scene.rng.sample(free, count)


def shape_kinds(rng: random.Random, count: int, avoid: Sequence[str] = ()) -> list[str]:
    """``count`` different shapes, none in ``avoid``."""
    return rng.sample([shape for shape in SHAPES if shape not in avoid], count)
