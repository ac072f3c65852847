"""What a thing is, is for, has and where it lives; flags."""

import random
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image, ImageDraw

from igva.probe import scenes
from igva.probe.dealer import Dealer, Drawn
from igva.probe.facts import FLAGS, HABITATS, KINDS, LEGS, USES
from igva.probe.questions import Question, phrase
from igva.probe.scenes import Scene, Thing
from igva.probe.vocabulary import COLORS, Split


def _about(task: str, groups: dict[str, tuple[str, ...]]) -> Callable[[random.Random, Split, Dealer], Drawn]:
    """One thing alone, and a question whose answer is the group it belongs to."""

    def draw(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
        answer = dealer.deal(task, tuple(groups))
        name = rng.choice(groups[answer])
        made = scenes.setting(rng, split, name)
        scenes.draw_objects(made, [name], scenes.scatter(rng, [scenes.side_of_one(rng, split, 72, 128)]))
        return made, ask_group(made, task, answer, groups)

    return draw


def ask_group(scene: Scene, task: str, answer: str, groups: Mapping[str, tuple[str, ...]]) -> Question:
    """To which of the groups does the thing shown belong?"""
    return Question(task, phrase(scene.rng, task), answer, tuple(groups))


kind = _about("kind", KINDS)
use = _about("use", USES)
legs = _about("legs", LEGS)
habitat = _about("habitat", HABITATS)


def flag(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
    """A flag of stripes, a disc or a cross: whose?"""
    country = dealer.deal("flag", tuple(FLAGS))
    shape, *colors = FLAGS[country]
    made = scenes.new_scene(rng, split, rng.choice([color for color in COLORS if color not in colors]))
    width = rng.randint(96, 168)
    height = round(width * 2 / 3)
    left = rng.randint(scenes.MARGIN, scenes.SIZE - scenes.MARGIN - width)
    top = rng.randint(scenes.MARGIN, scenes.SIZE - scenes.MARGIN - height)
    cloth = Image.new("RGB", (width, height), scenes.jitter(rng, colors[0]))
    PAINT[shape](rng, ImageDraw.Draw(cloth), width, height, colors)
    box = (left, top, left + width, top + height)
    made.image.paste(cloth, box)
    name_pieces(made, cloth, box, colors)
    return made, Question("flag", phrase(rng, "flag"), country, tuple(FLAGS))


def _rows(rng: random.Random, pen: ImageDraw.ImageDraw, width: int, height: int, colors: list[str]) -> None:
    for number, color in enumerate(colors):
        top, bottom = round(height * number / len(colors)), round(height * (number + 1) / len(colors))
        pen.rectangle((0, top, width, bottom), fill=scenes.jitter(rng, color))


def _columns(rng: random.Random, pen: ImageDraw.ImageDraw, width: int, height: int, colors: list[str]) -> None:
    for number, color in enumerate(colors):
        left, right = round(width * number / len(colors)), round(width * (number + 1) / len(colors))
        pen.rectangle((left, 0, right, height), fill=scenes.jitter(rng, color))


def _disc(rng: random.Random, pen: ImageDraw.ImageDraw, width: int, height: int, colors: list[str]) -> None:
    radius = round(0.3 * height)
    pen.ellipse(
        (width // 2 - radius, height // 2 - radius, width // 2 + radius, height // 2 + radius),
        fill=scenes.jitter(rng, colors[1]),
    )


def _nordic(rng: random.Random, pen: ImageDraw.ImageDraw, width: int, height: int, colors: list[str]) -> None:
    for color, share in zip(colors[1:], (0.22, 0.11), strict=False):
        half, ink = round(share * height / 2), scenes.jitter(rng, color)
        pen.rectangle((0, height // 2 - half, width, height // 2 + half), fill=ink)
        pen.rectangle((round(0.36 * width) - half, 0, round(0.36 * width) + half, height), fill=ink)


def _cross(rng: random.Random, pen: ImageDraw.ImageDraw, width: int, height: int, colors: list[str]) -> None:
    long, half, ink = round(0.3 * height), round(0.1 * height), scenes.jitter(rng, colors[1])
    x, y = width // 2, height // 2
    pen.rectangle((x - long, y - half, x + long, y + half), fill=ink)
    pen.rectangle((x - half, y - long, x + half, y + long), fill=ink)


PAINT: dict[str, Callable[[random.Random, ImageDraw.ImageDraw, int, int, list[str]], None]] = {
    "rows": _rows,
    "columns": _columns,
    "disc": _disc,
    "nordic": _nordic,
    "cross": _cross,
}


def name_pieces(made: Scene, cloth: Image.Image, box: scenes.Box, colors: list[str]) -> None:
    """Give the cells of a many-coloured thing the names of its colours."""
    pixels = np.asarray(cloth, dtype=np.float64)
    names = list(dict.fromkeys(colors))
    apart = np.stack([np.abs(pixels - np.array(COLORS[name])).sum(axis=-1) for name in names])
    nearest = apart.argmin(axis=0)
    for number, name in enumerate(names):
        mask = Image.fromarray(np.where(nearest == number, 255, 0).astype(np.uint8), "L")
        area = float((nearest == number).sum())
        scenes.place(made, Thing("piece", name, name, box, area), mask, name)
