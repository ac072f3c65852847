"""Says in more words what a training picture shows: what is where, in which order, all that is written.

A question of the suite has an answer of one word; to learn from that alone where things are takes many pictures. Only
training pictures are described, none of these questions is asked in a test, and they have no closed list of answers.
"""

import itertools
from collections.abc import Callable, Sequence

from igva.probe import pack
from igva.probe.draw_charts import DIGITS, FIELDS, ROWS
from igva.probe.facts import FLAGS
from igva.probe.questions import Question, article, clearly_larger, phrase, unlike_things
from igva.probe.scenes import SIZE, Scene, Thing
from igva.probe.vocabulary import COLORS, DESCRIBE, SHAPES

GAP = 20  # pixels between neighbours that are told in order
SLICE_GAP = 0.04  # of the pie, likewise
TINY = 30  # pixels: the longest side of a small thing


def descriptions(scene: Scene, first: Question) -> list[Question]:
    """All that can be told of a scene beside its first question; [] where there is nothing."""
    if first.task in _BY_TASK:
        return _BY_TASK[first.task](scene, first)
    if scene.alone and first.task != "small":
        return []
    return [turn for tell in (_what_is_where, _in_order, _places, _spelled) for turn in tell(scene)]


def _told(scene: Scene, key: str, answer: str, **words: str) -> Question:
    return Question(DESCRIBE, phrase(scene.rng, key, **words), answer, ())


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
        small = f"a tiny {thing.name}" if max(_sides(thing)) <= TINY else pack.noun(thing.name).phrase
        return f"{small} in {article(f'{thing.color} frame')}" if thing.color else small
    return article(coverage)  # a shape: with its colour or pattern


def _sides(thing: Thing) -> tuple[int, int]:
    left, top, right, bottom = thing.box
    return right - left, bottom - top


def _what_is_where(scene: Scene) -> list[Question]:
    """ "A goose at the top left, a hat at the right, on a blue background", in reading order; "3 geese, 2 hats"."""
    kinds = {thing.kind for thing in scene.things}
    if not kinds or not kinds <= {"object", "shape", "word", "pattern"}:
        return []
    words = [word for word, _ in scene.coverage]
    called = {id(thing): _called(thing, word) for thing, word in zip(scene.things, words, strict=True)}
    ordered = sorted(scene.things, key=lambda thing: (int(3 * thing.center[1] / SIZE), thing.center[0]))
    if len({thing.name for thing in scene.things}) < len(scene.things):
        told = ", ".join(_counted(scene))
    else:
        told = ", ".join(f"{called[id(thing)]} at the {where(thing)}" for thing in ordered)
    return [_told(scene, "describe", f"{told}{_ground(scene)}")]


def _ground(scene: Scene) -> str:
    """What the things are on; nothing where it is neither of one colour nor a photograph."""
    if scene.photographed:
        return ", on a photographed background"
    return f", on {article(scene.background)} background" if scene.background in COLORS else ""


def _counted(scene: Scene) -> list[str]:
    names = list(dict.fromkeys(thing.name for thing in scene.things))
    told = []
    for name in names:
        number = sum(thing.name == name for thing in scene.things)
        plural = f"{name}s" if name in SHAPES else pack.noun(name).plural
        told.append(f"{number} {name if number == 1 else plural}")
    return told


def _in_order(scene: Scene) -> list[Question]:
    """The things from left to right, from top to bottom, from the largest to the smallest, where that is clear."""
    things = scene.of_kind("object") or scene.of_kind("shape")
    if len(things) < 2 or len({thing.name for thing in things}) < len(things):
        return []
    turns = []
    for key, axis in (("from_left", 0), ("from_top", 1)):
        row = sorted(things, key=lambda thing: thing.center[axis])
        if all(b.center[axis] - a.center[axis] >= GAP for a, b in itertools.pairwise(row)):
            turns.append(_told(scene, key, _listed([thing.name for thing in row])))
    row = sorted(things, key=lambda thing: -max(_sides(thing)))
    if scene.of_kind("object") and all(clearly_larger(a, b) for a, b in itertools.pairwise(row)):
        turns.append(_told(scene, "from_largest", _listed([thing.name for thing in row])))
    return turns


def _places(scene: Scene) -> list[Question]:
    """Where one of several things is, and which of them is at a place that no other shares."""
    things = unlike_things(scene)
    if len(things) < 2:
        return []
    asked = scene.rng.choice(things)
    turns = [_told(scene, "where_is", where(asked), x=asked.name)]
    places = [where(thing) for thing in scene.things]
    single = [thing for thing in things if thing is not asked and places.count(where(thing)) == 1]
    if single:
        thing = scene.rng.choice(single)
        turns.append(_told(scene, "what_is_at", thing.name, place=where(thing)))
    return turns


def _spelled(scene: Scene) -> list[Question]:
    """A written word, letter by letter."""
    return [_told(scene, "spell", " ".join(thing.name)) for thing in scene.of_kind("word")]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)


def _bars(scene: Scene, first: Question) -> list[Question]:
    bars = scene.of_kind("bar")
    row = [str(bar.color) for bar in sorted(bars, key=lambda bar: bar.center[0])]
    tall = [str(bar.color) for bar in sorted(bars, key=lambda bar: -bar.value)]
    return [_told(scene, "bars", _listed(row)), _told(scene, "tallest_first", _listed(tall))]


def _slices(scene: Scene, first: Question) -> list[Question]:
    slices = sorted(scene.of_kind("slice"), key=lambda thing: -thing.area)
    if any(a.area - b.area < SLICE_GAP for a, b in itertools.pairwise(slices)):
        return []
    return [_told(scene, "slices", _listed([thing.name for thing in slices]))]


def _table(scene: Scene, first: Question) -> list[Question]:
    texts = [thing.name for thing in scene.of_kind("text")]
    rows, digits = [text for text in texts if text in ROWS], [text for text in texts if text in DIGITS]
    lines = [f"{row} {' '.join(digits[3 * i : 3 * i + 3])}" for i, row in enumerate(rows)]
    return [_told(scene, "read_table", _listed(lines))]


def _bill(scene: Scene, first: Question) -> list[Question]:
    texts = [thing.name for thing in scene.of_kind("text")]
    lines = [f"{field} {number}" for field, number in zip(texts[::2], texts[1::2], strict=True) if field in FIELDS]
    return [_told(scene, "read_bill", _listed(lines))]


def _overlap(scene: Scene, first: Question) -> list[Question]:
    back, front = scene.things
    names = pack.nouns()
    return [_told(scene, "describe", f"{names[front.name].phrase} in front of {names[back.name].phrase}")]


def _flag(scene: Scene, first: Question) -> list[Question]:
    shape, *colors = FLAGS[first.answer]
    if shape in ("rows", "columns"):
        way = "from top to bottom" if shape == "rows" else "from left to right"
        return [_told(scene, "flag_look", f"stripes {way}: {_listed(colors)}")]
    inner = f"{' and '.join(colors[1:])} {'disc' if shape == 'disc' else 'cross'}"
    return [_told(scene, "flag_look", f"{article(inner)} on {colors[0]}")]


_BY_TASK: dict[str, Callable[[Scene, Question], list[Question]]] = {
    "chart": _bars,
    "pie": _slices,
    "table": _table,
    "document": _bill,
    "depth": _overlap,
    "flag": _flag,
}
