"""Says in more words what a training picture shows: what is where, in which order, how a word is spelled.

A question of the suite has an answer of one word; to learn from that alone where things are takes many pictures. Only
training pictures are described, none of these questions is asked in a test, and they have no closed list of answers.
What is told here holds of any scene; what is told of the scenes of one task alone stands with that task.
"""

import itertools
from collections import Counter
from collections.abc import Sequence

from igva.probe import drawing, pack
from igva.probe.scenes import COLORS, SIZE, Scene, Thing, clearly_larger
from igva.probe.task_base import Question, article, phrase

DESCRIBE = "describe"  # what descriptions have in place of a task

THINGS_WORDINGS = (
    "Describe the picture.",
    "What does the picture show, and where?",
    "Tell what there is to see.",
)
FROM_LEFT_WORDINGS = (
    "Name the things from left to right.",
    "What is there, from left to right?",
)
FROM_TOP_WORDINGS = (
    "Name the things from top to bottom.",
    "What is there, from top to bottom?",
)
FROM_LARGEST_WORDINGS = (
    "Name the things from the largest to the smallest.",
    "What is there, by size, the largest first?",
)
WHERE_IS_WORDINGS = (
    "Where is the {x}?",
    "In which part of the picture is the {x}?",
)
WHAT_IS_AT_WORDINGS = (
    "What is at the {place}?",
    "Which thing is at the {place}?",
)
SPELL_WORDINGS = (
    "Spell the written word.",
    "Which letters are written in the picture?",
)
GAP = 20  # pixels between neighbours that are named in order
TINY = 30  # pixels: the longest side of a small thing


def description(scene: Scene, wordings: Sequence[str], answer: str, **words: str) -> Question:
    """A question with an answer in words of one's own."""
    return Question(DESCRIBE, phrase(scene.rng, wordings, **words), answer, ())


def describe_things(scene: Scene, first: Question) -> list[Question]:
    """All that can be told of the things of a scene, whatever it has been asked first; [] where there is nothing."""
    return [turn for tell in (_what_is_where, _in_order, _places, _spelled) for turn in tell(scene)]


def where(thing: Thing) -> str:
    """Which ninth of the picture a thing's centre lies in."""
    column, row = (min(2, int(3 * at / SIZE)) for at in thing.center)
    up, side = ("top", "", "bottom")[row], ("left", "", "right")[column]
    return f"{up} {side}".strip() or "center"


def _called(thing: Thing, coverage: str) -> str:
    """A thing with its article, and what is known of its colour, pattern or frame."""
    if thing.kind == "word":
        return f"the word {thing.name}"
    if thing.kind == "object":
        small = f"a tiny {thing.name}" if max(thing.sides) <= TINY else pack.noun(thing.name).phrase
        return f"{small} in {article(f'{thing.color} frame')}" if thing.color else small
    return article(coverage)  # a shape: with its colour or pattern


def _what_is_where(scene: Scene) -> list[Question]:
    """ "A goose at the top left, a hat at the right, on a blue background", in reading order; "3 geese, 2 hats"."""
    kinds = {thing.kind for thing in scene.things}
    if not kinds or not kinds <= {"object", "shape", "word", "pattern"}:
        return []
    words = [word for word, _ in scene.coverage]
    called = {id(thing): _called(thing, word) for thing, word in zip(scene.things, words, strict=True)}
    ordered = sorted(scene.things, key=lambda thing: (int(3 * thing.center[1] / SIZE), thing.center[0]))
    if len({thing.name for thing in scene.things}) < len(scene.things):
        shown = ", ".join(_counted(scene))
    else:
        shown = ", ".join(f"{called[id(thing)]} at the {where(thing)}" for thing in ordered)
    return [description(scene, THINGS_WORDINGS, f"{shown}{_background(scene)}")]


def _background(scene: Scene) -> str:
    """What the things are on; nothing where it is neither of one colour nor a photograph."""
    if scene.photographed:
        return ", on a photographed background"
    return f", on {article(scene.background)} background" if scene.background in COLORS else ""


def _counted(scene: Scene) -> list[str]:
    numbers = Counter(thing.name for thing in scene.things)
    return [f"{number} {name if number == 1 else drawing.plural(name)}" for name, number in numbers.items()]


def _in_order(scene: Scene) -> list[Question]:
    """The things from left to right, from top to bottom, from the largest to the smallest, where that is clear."""
    things = scene.of_kind("object") or scene.of_kind("shape")
    if len(things) < 2 or len({thing.name for thing in things}) < len(things):
        return []
    turns = []
    for wordings, axis in ((FROM_LEFT_WORDINGS, 0), (FROM_TOP_WORDINGS, 1)):
        row = sorted(things, key=lambda thing: thing.center[axis])
        if all(b.center[axis] - a.center[axis] >= GAP for a, b in itertools.pairwise(row)):
            turns.append(description(scene, wordings, ", ".join(thing.name for thing in row)))
    row = sorted(things, key=lambda thing: -max(thing.sides))
    if scene.of_kind("object") and all(clearly_larger(a, b) for a, b in itertools.pairwise(row)):
        turns.append(description(scene, FROM_LARGEST_WORDINGS, ", ".join(thing.name for thing in row)))
    return turns


def _places(scene: Scene) -> list[Question]:
    """Where one of several things is, and which of them is at a place that no other shares."""
    things = scene.unlike_things()
    if len(things) < 2:
        return []
    asked = scene.rng.choice(things)
    turns = [description(scene, WHERE_IS_WORDINGS, where(asked), x=asked.name)]
    places = [where(thing) for thing in scene.things]
    single = [thing for thing in things if thing is not asked and places.count(where(thing)) == 1]
    if single:
        thing = scene.rng.choice(single)
        turns.append(description(scene, WHAT_IS_AT_WORDINGS, thing.name, place=where(thing)))
    return turns


def _spelled(scene: Scene) -> list[Question]:
    """A written word, letter by letter."""
    return [description(scene, SPELL_WORDINGS, " ".join(thing.name)) for thing in scene.of_kind("word")]
