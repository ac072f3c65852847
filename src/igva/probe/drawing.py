"""Draws things into scenes: objects and shapes, in places and colours that keep them apart and let them stand out.

Every random choice comes from the scene's stream or the ``random.Random`` handed in.
"""

import functools
import math
import random
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance

from igva.probe import hands, pack
from igva.probe.edition import Split
from igva.probe.scenes import (
    BACKDROP,
    COLORS,
    CUTOUTS,
    MARGIN,
    SIZE,
    Box,
    Scene,
    Thing,
    distance,
    jitter,
    new_scene,
    photo_scene,
)

SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "star", "heart", "diamond")
PHOTOS = 0.35  # share of the training pictures of a task that may have photographs, beside those that are all of them
CONTRAST = 55.0  # least mean distance of a thing's pixels from what is behind them


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
    drawings = _drawings(scene, name)
    if scene.background == BACKDROP:
        return drawings
    back = COLORS[scene.background]
    clear = [drawing for drawing in drawings if distance(drawing.mean, back) > 70]
    return clear if scene.style in (pack.MIXED, CUTOUTS) or len(clear) == len(drawings) else ()


def _drawings(scene: Scene, name: str) -> Sequence[pack.Drawing]:
    if scene.style == CUTOUTS:
        return pack.photographs(name) if name in pack.photograph_names() else pack.drawings(pack.MIXED, name)
    return pack.drawings(scene.style, name)


@functools.cache
def _one_coloured(name: str) -> frozenset[int]:
    """The ids of a name's drawings that have one colour (drawings are kept, so that an id stays a drawing's)."""
    if name not in pack.nouns():
        return frozenset()
    return frozenset(id(drawing) for style in pack.SILHOUETTES for drawing in pack.drawings(style, name))


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
    tries: list[tuple[float, Image.Image]] = []
    for _ in range(6):
        sprite = drawing.image
        if scene.style == CUTOUTS and name in pack.photograph_names():
            sprite = hands.reshaped(rng, sprite, side)
        else:
            if id(drawing) in _one_coloured(name):
                sprite = hands.silhouette(rng, sprite, paper)
            sprite = hands.render(rng, sprite, paper, side)
        tries.append((_contrast(sprite, behind.resize(sprite.size)), sprite))
        if tries[-1][0] >= CONTRAST:
            break
        drawing = rng.choice(choice_of(scene, name) or [first])
    return max(tries, key=lambda pair: pair[0])[1]


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
        scene.add(thing, alpha, name)


def draw_scattered(scene: Scene, names: Sequence[str]) -> None:
    """One to three different objects anywhere, their longer sides 56-112 pixels, the more the smaller."""
    most = {1: 112, 2: 108, 3: 96}[len(names)]
    sides = [scene.rng.randint(56, most) for _ in names]
    draw_objects(scene, names, scatter(scene.rng, sides))


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
        scene.add(Thing("shape", shape, color, box, area), mask, f"{color} {shape}")


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


def plural(name: str) -> str:
    """Of a name or a shape."""
    return f"{name}s" if name in SHAPES else pack.noun(name).plural


def absent_name(rng: random.Random, present: Sequence[str]) -> str:
    """A name that is neither there nor could be said of anything there."""
    names = list(pack.nouns())
    while True:
        name = rng.choice(names)
        if pack.apart(name, present):
            return name


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
