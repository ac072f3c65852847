"""Four tasks on one kind of picture: a named thing, a shape with a pattern, a word in small type, and a dot of colour.

What is needed differs with the question alone: a thing's name stands in deep layers, a pattern, the strokes of small
letters and the colour of a few pixels in shallow ones. So these are the pictures on which it must pay to let the
question choose the layers, wherever not everything fits through (docs/guidance.md). They are no part of the published
suite.
"""

import functools
import random

import numpy as np

from igva.probe import drawing, pack, scenes, task_charts, task_fine
from igva.probe.drawing import SHAPES
from igva.probe.edition import Split
from igva.probe.task_base import Dealer, Drawn, Question, Task, phrase

WORDINGS = {
    "word_beside": (
        "Which word is written beside the {shape}?",
        "Read the small word beside the {shape}.",
        "What does the small writing say?",
    ),
    "pattern_beside": (
        "Which pattern does the {shape} have?",
        "How is the {shape} filled?",
        "What pattern is on the {shape}?",
    ),
    "thing_beside": (
        "Which thing is beside the {shape}?",
        "Name the object beside the {shape}.",
        "What is shown beside the {shape}?",
    ),
    "dot_beside": (
        "What colour is the dot beside the {shape}?",
        "Which colour has the small dot?",
        "Name the colour of the dot beside the {shape}.",
    ),
}
DOT_COLORS = tuple(color for color in scenes.COLORS if color not in ("black", "white", "gray"))
HALF = scenes.SIZE // 2
QUARTERS = tuple((left, top) for left in (0, HALF) for top in (0, HALF))


def _draw(rng: random.Random, split: Split, dealer: Dealer, task: str) -> Drawn:
    """The picture with the question of one task, whose answer is dealt; the others are drawn by lot."""
    decks = _decks()
    answers = {name: dealer.deal(task, deck) if name == task else rng.choice(deck) for name, deck in decks.items()}
    scene = drawing.background_for(rng, split, answers["thing_beside"])
    while scene.background == answers["dot_beside"]:
        scene = drawing.background_for(rng, split, answers["thing_beside"])
    shape = rng.choice([name for name in SHAPES if name != "diamond"])
    thing, pattern, word, dot = rng.sample(QUARTERS, 4)
    drawing.draw_objects(scene, [answers["thing_beside"]], [_square(rng, *thing, 76, 98)])
    colors = drawing.shape_colors(scene, 2)
    task_fine.draw_filled(scene, shape, answers["pattern_beside"], colors, _square(rng, *pattern, 72, 96))
    left, top = word
    inside = (top + 12, top + HALF - 12, left + scenes.MARGIN, left + HALF - scenes.MARGIN)
    task_charts.write_word(scene, answers["word_beside"], *inside, widths=(0.24, 0.36))
    _draw_dot(scene, answers["dot_beside"], _square(rng, *dot, 6, 10))
    scene.alone = True
    return scene, Question(task, phrase(rng, WORDINGS[task], shape=shape), answers[task], decks[task])


def _more(scene: scenes.Scene) -> list[Question]:
    """All four questions; of a picture for training the three that were not asked first are asked too."""
    (shape,), (thing,), (word,), (dot,) = map(scene.of_kind, ("pattern", "object", "word", "dot"))
    (filled,) = (words for words, _ in scene.coverage if words.split()[0] in task_fine.PATTERNS)
    answers = {
        "thing_beside": thing.name,
        "pattern_beside": filled.split()[0],
        "word_beside": word.name,
        "dot_beside": str(dot.color),
    }
    return [
        Question(task, phrase(scene.rng, WORDINGS[task], shape=shape.name), answer, _decks()[task])
        for task, answer in answers.items()
    ]


def _decks() -> dict[str, tuple[str, ...]]:
    """The answers of each task."""
    return {
        "thing_beside": tuple(pack.nouns()),
        "pattern_beside": task_fine.PATTERNS,
        "word_beside": task_charts.WORDS,
        "dot_beside": DOT_COLORS,
    }


def _draw_dot(scene: scenes.Scene, color: str, box: scenes.Box) -> None:
    """A disc of one colour, a few pixels wide."""
    mask = drawing.shape_mask(scene.rng, "circle", box[2] - box[0])
    scene.image.paste(scenes.jitter(scene.rng, color), box[:2], mask)
    corner = (box[0] + mask.width, box[1] + mask.height)
    area = float((np.asarray(mask) > 127).sum())
    scene.add(scenes.Thing("dot", "dot", color, (*box[:2], *corner), area), mask, f"{color} dot")


def _square(rng: random.Random, left: int, top: int, least: int, most: int) -> scenes.Box:
    """A square inside a quarter of the picture."""
    side = rng.randint(least, most)
    room = HALF - scenes.MARGIN - side
    x, y = left + rng.randint(scenes.MARGIN, room), top + rng.randint(scenes.MARGIN, room)
    return x, y, x + side, y + side


def _task(name: str, category: str) -> Task:
    return Task(name, category, functools.partial(_draw, task=name), more=_more)


THING_BESIDE = _task("thing_beside", "General")
WORD_BESIDE = _task("word_beside", "Chart & OCR")
DOT_BESIDE = _task("dot_beside", "Fine-Grained")
PATTERN_BESIDE = _task("pattern_beside", "Fine-Grained")
