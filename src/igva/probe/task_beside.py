"""Three tasks on one kind of picture: a named thing, a shape with a pattern, and a word in small type, side by side.

What is needed differs with the question alone: a thing's name stands in deep layers, a pattern and the strokes of small
letters in shallow ones. So these are the pictures on which it must pay to let the question choose the layers, wherever
not everything fits through (docs/guidance.md). They are no part of the published suite.
"""

import random

from igva.probe import drawing, pack, scenes, task_charts, task_fine
from igva.probe.drawing import SHAPES
from igva.probe.edition import Split
from igva.probe.scenes import Scene
from igva.probe.task_base import Dealer, Drawn, Question, Task, phrase

WORD_WORDINGS = (
    "Which word is written beside the {shape}?",
    "Read the small word beside the {shape}.",
    "What does the small writing say?",
)
PATTERN_WORDINGS = (
    "Which pattern does the {shape} have?",
    "How is the {shape} filled?",
    "What pattern is on the {shape}?",
)
THING_WORDINGS = (
    "Which thing is beside the {shape}?",
    "Name the object beside the {shape}.",
    "What is shown beside the {shape}?",
)
HALF = scenes.SIZE // 2
QUARTERS = tuple((left, top) for left in (0, HALF) for top in (0, HALF))


def _draw(rng: random.Random, split: Split, dealer: Dealer, task: str) -> tuple[Scene, str, dict[str, str]]:
    """The picture, its shape, and the answer to each of the three questions; the asked one's is dealt."""
    decks = {
        "thing_beside": tuple(pack.nouns()),
        "pattern_beside": task_fine.PATTERNS,
        "word_beside": task_charts.WORDS,
    }
    answers = {name: dealer.deal(task, deck) if name == task else rng.choice(deck) for name, deck in decks.items()}
    scene = drawing.background_for(rng, split, answers["thing_beside"])
    shape = rng.choice([name for name in SHAPES if name != "diamond"])
    thing, pattern, word = rng.sample(QUARTERS, 3)
    drawing.draw_objects(scene, [answers["thing_beside"]], [_square(rng, *thing, 76, 98)])
    colors = drawing.shape_colors(scene, 2)
    task_fine.draw_filled(scene, shape, answers["pattern_beside"], colors, _square(rng, *pattern, 72, 96))
    left, top = word
    inside = (top + 12, top + HALF - 12, left + scenes.MARGIN, left + HALF - scenes.MARGIN)
    task_charts.write_word(scene, answers["word_beside"], *inside, widths=(0.24, 0.36))
    scene.alone = True
    return scene, shape, answers


def _square(rng: random.Random, left: int, top: int, least: int, most: int) -> scenes.Box:
    """A square inside a quarter of the picture."""
    side = rng.randint(least, most)
    room = HALF - scenes.MARGIN - side
    x, y = left + rng.randint(scenes.MARGIN, room), top + rng.randint(scenes.MARGIN, room)
    return x, y, x + side, y + side


def _draw_word(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
    scene, shape, answers = _draw(rng, split, dealer, "word_beside")
    asked = phrase(rng, WORD_WORDINGS, shape=shape)
    return scene, Question("word_beside", asked, answers["word_beside"], task_charts.WORDS)


def _draw_pattern(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
    scene, shape, answers = _draw(rng, split, dealer, "pattern_beside")
    asked = phrase(rng, PATTERN_WORDINGS, shape=shape)
    return scene, Question("pattern_beside", asked, answers["pattern_beside"], task_fine.PATTERNS)


def _draw_thing(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
    scene, shape, answers = _draw(rng, split, dealer, "thing_beside")
    asked = phrase(rng, THING_WORDINGS, shape=shape)
    return scene, Question("thing_beside", asked, answers["thing_beside"], tuple(pack.nouns()))


THING_BESIDE = Task("thing_beside", "General", _draw_thing)
WORD_BESIDE = Task("word_beside", "Chart & OCR", _draw_word)
PATTERN_BESIDE = Task("pattern_beside", "Fine-Grained", _draw_pattern)
