"""Puts questions to a scene. Each function draws what it needs from the scene's own random stream."""

import random
from dataclasses import dataclass

from igva.probe import pack
from igva.probe.scenes import Scene, Thing
from igva.probe.vocabulary import COLORS, SHAPES, TEMPLATES, WORDS

COUNTS = ("1", "2", "3", "4", "5")


@dataclass(frozen=True)
class Question:
    """One question; ``answer`` (lower case) is one of ``choices``, the closed list it is judged by.

    It is what is asked about a scene while the scene is drawn: a turn of a conversation, without the picture's file
    and an id. What is read back from the files written is ``igva.data.questions.Question``.
    """

    task: str
    question: str
    answer: str
    choices: tuple[str, ...]


def phrase(rng: random.Random, key: str, **words: str) -> str:
    """One of the ways to put a kind of question."""
    return rng.choice(TEMPLATES[key]).format(**words)


def ask_name(scene: Scene, name: str) -> Question:
    """What is the one thing shown?"""
    choices = tuple(pack.nouns()) if name in pack.nouns() else (*pack.nouns(), *pack.photo_nouns())
    return Question("name", phrase(scene.rng, "name"), name, choices)


def ask_background(scene: Scene) -> Question:
    """The background's colour."""
    return Question("color", phrase(scene.rng, "background"), scene.background, tuple(COLORS))


def ask_shape_color(scene: Scene, shape: Thing) -> Question:
    """The colour of a shape that occurs once."""
    assert shape.color is not None
    return Question("color", phrase(scene.rng, "shape_color", x=shape.name), shape.color, tuple(COLORS))


def ask_count(scene: Scene, name: str, count: int) -> Question:
    """How many of an object or shape?"""
    plural = f"{name}s" if name in SHAPES else pack.noun(name).plural
    return Question("count", phrase(scene.rng, "count", xs=plural), str(count), COUNTS)


def ask_exists(scene: Scene, what: str, answer: bool, task: str = "exists") -> Question:
    """Is it there? ``what`` carries its article."""
    return Question(task, phrase(scene.rng, "exists", a=what), "yes" if answer else "no", ("yes", "no"))


def side_of(axis: str, thing: Thing, other: Thing) -> str | None:
    """On which side of ``other`` ``thing`` clearly lies along an axis; None where it is not clear."""
    at = 0 if axis == "horizontal" else 1
    gap = thing.center[at] - other.center[at]
    if abs(gap) < 45:
        return None
    return ("left", "right")[gap > 0] if at == 0 else ("above", "below")[gap > 0]


def ask_position(scene: Scene, axis: str, thing: Thing, other: Thing) -> Question:
    """On which side of ``other`` is ``thing``? The caller has made sure that it is clear."""
    answer = side_of(axis, thing, other)
    assert answer is not None
    choices = ("left", "right") if axis == "horizontal" else ("above", "below")
    text = phrase(scene.rng, axis, x=thing.name, y=other.name)
    return Question("position", text, answer, choices)


def furthest(scene: Scene, side: str) -> Thing | None:
    """The object clearly furthest left or right: nearest edge and centre lead by 20 pixels."""
    sign = 1 if side == "left" else -1
    edge = 0 if side == "left" else 2
    first, second = sorted(scene.of_kind("object"), key=lambda thing: sign * thing.center[0])[:2]
    leads = (sign * (second.center[0] - first.center[0]), sign * (second.box[edge] - first.box[edge]))
    return first if min(leads) >= 20 else None


def drawn_names(scene: Scene) -> tuple[str, ...]:
    """The names of the objects, in alphabetical order (drawing order would give answers away)."""
    return tuple(sorted(thing.name for thing in scene.of_kind("object")))


def ask_furthest(scene: Scene, side: str, thing: Thing) -> Question:
    """Which object is furthest left or right?"""
    return Question("position", phrase(scene.rng, f"furthest_{side}"), thing.name, drawn_names(scene))


def clearly_larger(thing: Thing, other: Thing) -> bool:
    """Longer side by 1.3 and visible area by 1.5: nobody would argue."""

    def side(item: Thing) -> int:
        left, top, right, bottom = item.box
        return max(right - left, bottom - top)

    return side(thing) >= 1.3 * side(other) and thing.area >= 1.5 * other.area


def ask_size(scene: Scene, larger: bool, first: Thing, second: Thing) -> Question:
    """Which of two is larger (or smaller)? They are mentioned in the order given."""
    big, small = (first, second) if clearly_larger(first, second) else (second, first)
    text = phrase(scene.rng, "larger" if larger else "smaller", x=first.name, y=second.name)
    return Question("size", text, (big if larger else small).name, (first.name, second.name))


def ask_largest(scene: Scene, thing: Thing) -> Question:
    """What is the largest object?"""
    return Question("size", phrase(scene.rng, "largest"), thing.name, drawn_names(scene))


def ask_read(scene: Scene, word: str) -> Question:
    """Which word is written?"""
    return Question("read", phrase(scene.rng, "read"), word, WORDS)


def ask_chart(scene: Scene, which: str) -> Question:
    """The colour of the tallest or shortest bar."""
    pick = max if which == "tallest" else min
    bar = pick(scene.of_kind("bar"), key=lambda thing: thing.value)
    assert bar.color is not None
    return Question("chart", phrase(scene.rng, which), bar.color, tuple(COLORS))


# --- more turns, for training: whatever else can be asked about a scene ---------------------------


def more_exists(scene: Scene, asked: str | None = None) -> list[Question]:
    """One turn per different thing there, each yes or no by a fair coin (never fixed in number: a
    model could work the last answer out from the others), about a thing there or one that is not."""
    rng = scene.rng
    table = pack.nouns()
    objects = list(dict.fromkeys(thing.name for thing in scene.of_kind("object")))
    shapes = list(dict.fromkeys(thing.name for thing in scene.of_kind("shape")))
    bars = [str(thing.color) for thing in scene.of_kind("bar")]
    there = [pack.noun(name).phrase for name in objects if name != asked]
    there += [f"a {shape}" for shape in shapes] + [article(f"{color} bar") for color in bars]
    rng.shuffle(there)
    questions: list[Question] = []
    missing: list[str] = [] if asked is None else [asked]
    for what in there[: 1 if bars else 3]:
        if rng.random() < 0.5:
            questions.append(ask_exists(scene, what, True))
            continue
        if shapes:
            absent = rng.choice([shape for shape in SHAPES if shape not in shapes])
            wanted = f"a {absent}"
        elif bars:
            absent = rng.choice([color for color in COLORS if color not in bars])
            wanted = article(f"{absent} bar")
        else:
            absent = absent_name(rng, objects + missing)
            wanted = table[absent].phrase
        missing.append(absent)
        if all(wanted not in question.question for question in questions):
            questions.append(ask_exists(scene, wanted, False))
    return questions


def article(words: str) -> str:
    """ "orange bar" -> "an orange bar"."""
    return ("an " if words[0] in "aeiou" else "a ") + words


def absent_name(rng: random.Random, present: list[str]) -> str:
    """A name that is neither there nor could be said of anything there."""
    names = list(pack.nouns())
    while True:
        name = rng.choice(names)
        if pack.apart(name, present):
            return name


def more_name(scene: Scene) -> list[Question]:
    """Where all objects are of one name and nothing else is drawn."""
    names = {thing.name for thing in scene.things}
    if len(names) == 1 and scene.of_kind("object"):
        return [ask_name(scene, scene.things[0].name)]
    return []


def single_shapes(scene: Scene) -> list[Thing]:
    """Shapes that occur once."""
    shapes = scene.of_kind("shape")
    return [thing for thing in shapes if sum(other.name == thing.name for other in shapes) == 1]


def more_color(scene: Scene) -> list[Question]:
    """The background, where it has a colour, and up to two shapes that occur once, in any order."""
    rng = scene.rng
    questions = [ask_background(scene)] if scene.background in COLORS else []
    shapes = single_shapes(scene)
    questions += [ask_shape_color(scene, shape) for shape in rng.sample(shapes, min(2, len(shapes)))]
    rng.shuffle(questions)
    return questions


def unlike_things(scene: Scene) -> list[Thing]:
    """Objects, else shapes, whose name occurs once."""
    things = scene.of_kind("object") or scene.of_kind("shape")
    return [thing for thing in things if sum(other.name == thing.name for other in things) == 1]


def more_position(scene: Scene) -> list[Question]:
    """Up to three clear relations between different pairs, named in either order."""
    rng = scene.rng
    things = unlike_things(scene)
    options = [
        (axis, rng.sample((a, b), 2))
        for i, a in enumerate(things)
        for b in things[i + 1 :]
        for axis in ("horizontal", "vertical")
        if side_of(axis, a, b)
    ]
    rng.shuffle(options)
    return [ask_position(scene, axis, *pair) for axis, pair in options[:3]]


def more_size(scene: Scene) -> list[Question]:
    """Up to three pairs of objects of clearly different size."""
    rng = scene.rng
    things = unlike_things(scene) if scene.of_kind("object") else []
    pairs = [
        rng.sample((a, b), 2)
        for i, a in enumerate(things)
        for b in things[i + 1 :]
        if clearly_larger(a, b) or clearly_larger(b, a)
    ]
    rng.shuffle(pairs)
    return [ask_size(scene, rng.random() < 0.5, a, b) for a, b in pairs[:3]]


def more_chart(scene: Scene) -> list[Question]:
    """Tallest and shortest bar, in either order."""
    if not scene.of_kind("bar"):
        return []
    return [ask_chart(scene, which) for which in scene.rng.sample(("tallest", "shortest"), 2)]


def more_count(scene: Scene) -> list[Question]:
    """The second kind of thing in a counting scene."""
    if scene.subject is None:
        return []
    others = [thing.name for thing in scene.things if thing.name != scene.subject]
    return [ask_count(scene, others[0], len(others))] if others else []
