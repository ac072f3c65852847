"""The category "Knowledge": what a thing is, is for, has and where it lives; flags."""

import random
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from igva.probe import drawing, facts, scenes
from igva.probe.describe import description
from igva.probe.edition import Split
from igva.probe.scenes import COLORS, Scene, Thing
from igva.probe.task_base import YES_NO, Dealer, Drawn, Question, Task, article, kind_words, phrase

KIND_WORDINGS = (
    "What kind of thing is this?",
    "Which kind of thing does the picture show?",
    "What sort of thing is shown?",
)
WHETHER_WORDINGS = (  # it is of a kind: see kind_words
    "Is this {a}?",
    "Is it {a}?",
    "Is this a kind of {x}?",
    "Is {a} shown here?",
    "Does the picture show {a}?",
)
WHETHER = 0.6  # share of the questions after the kind of a training picture's one thing that are put so
USE_WORDINGS = (
    "What is this used for?",
    "What does one use this thing for?",
    "For what purpose is the thing in the picture made?",
)
OPEN_USE_WORDINGS = (
    "What is it used for?",
    "What is this for?",
    "What do people use it for?",
    "What can one do with this?",
)
OPEN_USE = 0.4  # likewise
LEGS_WORDINGS = (
    "How many legs does this animal have?",
    "How many legs does an animal of this kind have?",
    "What is the number of legs of such an animal?",
)
HABITAT_WORDINGS = (
    "Where does this animal mostly live?",
    "Where would one mostly find this animal?",
    "What is the home of this animal?",
)
FLAG_WORDINGS = (
    "Which country has this flag?",
    "Whose flag is this?",
    "The flag of which country is shown?",
)
FLAG_LOOK_WORDINGS = (
    "What does the flag look like?",
    "Describe the flag.",
)

Groups = Mapping[str, tuple[str, ...]]


def _about(task: str, groups: Groups, wordings: Sequence[str]) -> Callable[[random.Random, Split, Dealer], Drawn]:
    """One thing alone, and a question whose answer is the group it belongs to."""

    def draw(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
        answer = dealer.deal(task, tuple(groups))
        name = rng.choice(groups[answer])
        scene = drawing.setting(rng, split, name)
        drawing.draw_objects(scene, [name], drawing.scatter(rng, [drawing.side_of_one(rng, split, 72, 128)]))
        return scene, Question(task, phrase(rng, wordings), answer, tuple(groups))

    return draw


def _more_about(task: str, groups: Groups, wordings: Sequence[str]) -> Callable[[Scene], list[Question]]:
    """To which group does the one thing shown belong?"""

    def more(scene: Scene) -> list[Question]:
        name = scene.only_name()
        fitting = [group for group, members in groups.items() if name in members]
        return [Question(task, phrase(scene.rng, wordings), fitting[0], tuple(groups))] if len(fitting) == 1 else []

    return more


def ask_whether(rng: random.Random, kinds: Sequence[str]) -> Question | None:
    """Is it of a kind? Yes or no by a fair coin; ``kinds`` are all that can be said of it, the last one of ``KINDS``.

    None where that is not known.
    """
    if not kinds or kinds[-1] not in facts.KINDS:
        return None
    true = rng.random() < 0.5
    others = [kind for kind in facts.KINDS if kind not in kinds and kind not in facts.DISPUTED[kinds[-1]]]
    text = phrase(rng, WHETHER_WORDINGS, **kind_words(rng.choice(kinds if true else others)))
    return Question("kind", text, "yes" if true else "no", YES_NO)


def _reword_kind(scene: Scene, question: Question) -> Question:
    name = scene.only_name()
    if name is None or scene.rng.random() >= WHETHER or name not in facts.KIND_OF:
        return question
    return ask_whether(scene.rng, (facts.KIND_OF[name],)) or question


def _reword_use(scene: Scene, question: Question) -> Question:
    if scene.only_name() is None or scene.rng.random() >= OPEN_USE:
        return question
    return Question("use", phrase(scene.rng, OPEN_USE_WORDINGS), question.answer, question.choices)


more_kind = _more_about("kind", facts.KINDS, KIND_WORDINGS)
more_use = _more_about("use", facts.USES, USE_WORDINGS)
more_legs = _more_about("legs", facts.LEGS, LEGS_WORDINGS)
more_habitat = _more_about("habitat", facts.HABITATS, HABITAT_WORDINGS)

KIND = Task("kind", "Knowledge", _about("kind", facts.KINDS, KIND_WORDINGS), more=more_kind, reword=_reword_kind)
USE = Task("use", "Knowledge", _about("use", facts.USES, USE_WORDINGS), more=more_use, reword=_reword_use)
LEGS = Task("legs", "Knowledge", _about("legs", facts.LEGS, LEGS_WORDINGS), more=more_legs)
HABITAT = Task("habitat", "Knowledge", _about("habitat", facts.HABITATS, HABITAT_WORDINGS), more=more_habitat)


def _draw_flag(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
    """A flag of stripes, a disc or a cross: whose?"""
    country = dealer.deal("flag", tuple(facts.FLAGS))
    shape, *colors = facts.FLAGS[country]
    scene = scenes.new_scene(rng, split, rng.choice([color for color in COLORS if color not in colors]))
    width = rng.randint(96, 168)
    height = round(width * 2 / 3)
    left = rng.randint(scenes.MARGIN, scenes.SIZE - scenes.MARGIN - width)
    top = rng.randint(scenes.MARGIN, scenes.SIZE - scenes.MARGIN - height)
    cloth = Image.new("RGB", (width, height), scenes.jitter(rng, colors[0]))
    _PAINT[shape](rng, ImageDraw.Draw(cloth), width, height, colors)
    box = (left, top, left + width, top + height)
    scene.image.paste(cloth, box)
    _add_pieces(scene, cloth, box, colors)
    return scene, Question("flag", phrase(rng, FLAG_WORDINGS), country, tuple(facts.FLAGS))


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


_PAINT: dict[str, Callable[[random.Random, ImageDraw.ImageDraw, int, int, list[str]], None]] = {
    "rows": _rows,
    "columns": _columns,
    "disc": _disc,
    "nordic": _nordic,
    "cross": _cross,
}


def _add_pieces(scene: Scene, cloth: Image.Image, box: scenes.Box, colors: list[str]) -> None:
    """Give the cells of a many-coloured thing the names of its colours."""
    pixels = np.asarray(cloth, dtype=np.float64)
    names = list(dict.fromkeys(colors))
    apart = np.stack([np.abs(pixels - np.array(COLORS[name])).sum(axis=-1) for name in names])
    nearest = apart.argmin(axis=0)
    for number, name in enumerate(names):
        mask = Image.fromarray(np.where(nearest == number, 255, 0).astype(np.uint8), "L")
        area = float((nearest == number).sum())
        scene.add(Thing("piece", name, name, box, area), mask, name)


def _describe_flag(scene: Scene, first: Question) -> list[Question]:
    shape, *colors = facts.FLAGS[first.answer]
    if shape in ("rows", "columns"):
        way = "from top to bottom" if shape == "rows" else "from left to right"
        return [description(scene, FLAG_LOOK_WORDINGS, f"stripes {way}: {', '.join(colors)}")]
    inner = f"{' and '.join(colors[1:])} {'disc' if shape == 'disc' else 'cross'}"
    return [description(scene, FLAG_LOOK_WORDINGS, f"{article(inner)} on {colors[0]}")]


FLAG = Task("flag", "Knowledge", _draw_flag, describe=_describe_flag)
