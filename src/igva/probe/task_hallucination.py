"""The category "Hallucination": things that may be absent, and colours that may belong to something else."""

import random
from collections.abc import Callable, Sequence

from igva.probe import drawing, pack, scenes
from igva.probe.drawing import SHAPES
from igva.probe.edition import Split
from igva.probe.facts import ALIKE, POPULAR
from igva.probe.scenes import COLORS, Scene
from igva.probe.task_base import YES_NO, Dealer, Drawn, Question, Task, article, phrase, stream

EXISTS_WORDINGS = (
    "Is there {a} in the picture?",
    "Is there {a} in this image?",
    "Does the picture show {a}?",
    "Can you see {a} here?",
    "Does the image contain {a}?",
)
ATTRIBUTE_WORDINGS = (
    "Is the {x} {c}?",
    "Is the color of the {x} {c}?",
    "Does the picture show a {c} {x}?",
)


def _ask_exists(scene: Scene, what: str, answer: bool, task: str = "exists") -> Question:
    """Is it there? ``what`` carries its article."""
    return Question(task, phrase(scene.rng, EXISTS_WORDINGS, a=what), "yes" if answer else "no", YES_NO)


def _draw_exists(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
    name, present = _pair(dealer, "exists", tuple(pack.nouns()), "coin")
    scene = drawing.setting(rng, split, name)
    count = rng.randint(1, 3)
    others = drawing.pick_names(scene, count - present, avoid=[name])
    names = [*([name] if present else []), *others]
    rng.shuffle(names)
    drawing.draw_scattered(scene, names)
    return scene, _ask_exists(scene, pack.nouns()[name].phrase, present)


def _pair(dealer: Dealer, task: str, names: tuple[str, ...], *coin: str) -> tuple[str, bool]:
    """What is asked and whether it is there: numbers 2j and 2j+1 ask for the same, one yes and one no, in an order
    drawn by lot, from the stream named ``coin``."""
    pair = dealer.number // 2
    name = dealer.deal(task, names, pair)
    yes_first = bool(stream(dealer.seed, dealer.split, *coin, pair).getrandbits(1))
    return name, yes_first == (dealer.number % 2 == 0)


def more_exists(scene: Scene) -> list[Question]:
    """One turn per different thing there, each yes or no by a fair coin (never fixed in number: a
    model could work the last answer out from the others), about a thing there or one that is not."""
    rng = scene.rng
    table = pack.nouns()
    objects = list(dict.fromkeys(thing.name for thing in scene.of_kind("object")))
    shapes = list(dict.fromkeys(thing.name for thing in scene.of_kind("shape")))
    bars = [str(thing.color) for thing in scene.of_kind("bar")]
    there = [pack.noun(name).phrase for name in objects]
    there += [f"a {shape}" for shape in shapes] + [article(f"{color} bar") for color in bars]
    rng.shuffle(there)
    questions: list[Question] = []
    missing: list[str] = []
    for what in there[: 1 if bars else 3]:
        if rng.random() < 0.5:
            questions.append(_ask_exists(scene, what, True))
            continue
        if shapes:
            absent = rng.choice([shape for shape in SHAPES if shape not in shapes])
            wanted = f"a {absent}"
        elif bars:
            absent = rng.choice([color for color in COLORS if color not in bars])
            wanted = article(f"{absent} bar")
        else:
            absent = drawing.absent_name(rng, objects + missing)
            wanted = table[absent].phrase
        missing.append(absent)
        if all(wanted not in question.question for question in questions):
            questions.append(_ask_exists(scene, wanted, False))
    return questions


EXISTS = Task("exists", "Hallucination", _draw_exists, more=more_exists, subject="exists", repeats="things")


def _among(
    task: str, names: Sequence[str], company: Callable[[str], tuple[str, ...]]
) -> Callable[[random.Random, Split, Dealer], Drawn]:
    """Two or three of a thing's company, the thing itself among them or not: is it there?"""

    def draw(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
        name, present = _pair(dealer, task, tuple(names), task, "coin")
        scene = drawing.setting(rng, split, name)
        count = rng.randint(2, 3)
        free = [other for other in company(name) if pack.apart(other, [name]) and drawing.stands_out(scene, other)]
        rng.shuffle(free)
        shown = [name] if present else []
        for other in free:
            if len(shown) < count and pack.apart(other, shown):
                shown.append(other)
        if not shown:  # nothing of the company can be seen on this background
            shown = drawing.pick_names(scene, 1, avoid=[name])
        rng.shuffle(shown)
        drawing.draw_scattered(scene, shown)
        return scene, _ask_exists(scene, pack.nouns()[name].phrase, present, task)

    return draw


def _more_among(task: str, company: Callable[[str], tuple[str, ...]]) -> Callable[[Scene], list[Question]]:
    """Two turns at most, each yes or no by a fair coin: a thing that is there, or one of its company that is not."""

    def more(scene: Scene) -> list[Question]:
        rng, here = scene.rng, scene.names()
        names = [name for name in here if company(name)]
        questions: dict[str, Question] = {}
        for name in rng.sample(names, min(2, len(names))):
            absent = [other for other in company(name) if pack.apart(other, here) and other not in questions]
            there = rng.random() < 0.5
            if not there and not absent:
                continue
            asked = name if there else rng.choice(absent)
            questions[asked] = _ask_exists(scene, pack.noun(asked).phrase, there, task)
        return list(questions.values())

    return more


def _other_popular(name: str) -> tuple[str, ...]:
    return POPULAR if name in POPULAR else ()


def _alike(name: str) -> tuple[str, ...]:
    return ALIKE.get(name, ())


more_popular = _more_among("exists_popular", _other_popular)
more_adversarial = _more_among("exists_adversarial", _alike)

# Among things that are often drawn: is another of them there?
EXISTS_POPULAR = Task(
    "exists_popular",
    "Hallucination",
    _among("exists_popular", POPULAR, _other_popular),
    more=more_popular,
    subject="exists",
    repeats="things",
)
# Beside something of its own kind: is it there?
EXISTS_ADVERSARIAL = Task(
    "exists_adversarial",
    "Hallucination",
    _among("exists_adversarial", sorted(ALIKE), _alike),
    more=more_adversarial,
    subject="exists",
    repeats="things",
)


def _draw_attribute(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
    """Has a shape this colour, or is it the colour of another?"""
    true = dealer.deal("attribute", (True, False))
    scene = scenes.new_scene(rng, split)
    kinds, colors = drawing.shape_kinds(rng, 3), drawing.shape_colors(scene, 3)
    boxes = drawing.scatter(rng, [rng.randint(52, 80) for _ in kinds])
    drawing.draw_shapes(scene, list(zip(kinds, colors, strict=True)), boxes)
    return scene, _ask_attribute(scene, kinds[0], colors[0] if true else colors[1], true)


def _ask_attribute(scene: Scene, shape: str, color: str, answer: bool) -> Question:
    """Has the shape this colour?"""
    text = phrase(scene.rng, ATTRIBUTE_WORDINGS, x=shape, c=color)
    return Question("attribute", text, "yes" if answer else "no", YES_NO)


def _more_attribute(scene: Scene) -> list[Question]:
    """Has a shape this colour, or is it another shape's?"""
    shapes = scene.single_shapes()
    if len({shape.color for shape in shapes}) < 2:
        return []
    questions = []
    for shape in scene.rng.sample(shapes, 2):
        own = str(shape.color)
        others = sorted({str(other.color) for other in shapes} - {own})
        true = scene.rng.random() < 0.5
        questions.append(_ask_attribute(scene, shape.name, own if true else scene.rng.choice(others), true))
    return questions


ATTRIBUTE = Task("attribute", "Hallucination", _draw_attribute, more=_more_attribute, repeats="things")
