"""The same things asked more freely, as people do: "What animal is this?", "Is this a kind of food?". Training only."""

import random
from collections.abc import Sequence

from igva.probe.facts import KINDS
from igva.probe.questions import Question, article
from igva.probe.scenes import Scene

# {x} is a kind ("animal"), {one} one of it ("piece of clothing"), {a} that with its article.
TEMPLATES: dict[str, tuple[str, ...]] = {
    "name": (
        "What {one} is this?",
        "What kind of {x} is it?",
        "What kind of {x} is this?",
        "Which {one} do you see?",
        "Which {one} is shown here?",
        "What {one} does the picture show?",
    ),
    "kind": (
        "Is this {a}?",
        "Is it {a}?",
        "Is this a kind of {x}?",
        "Is {a} shown here?",
        "Does the picture show {a}?",
    ),
    "use": (
        "What is it used for?",
        "What is this for?",
        "What do people use it for?",
        "What can one do with this?",
    ),
    "label": (
        "What kind of {x} is this?",
        "What kind of {x} is it?",
        "Which kind of {x} do you see?",
        "What type of {x} is shown here?",
    ),
}
OPEN = {"name": 0.5, "kind": 0.6, "use": 0.4}  # share of the questions about one thing that are put so
PIECES = ("clothing", "furniture")  # kinds of which one says "a piece of"
# Kinds of which a thing of the first could be said too: whether it is one is never asked.
DISPUTED = {
    "animal": ("food",),
    "food": ("animal", "plant"),
    "plant": ("food",),
    "instrument": ("tool",),
    "clothing": ("tool",),
    "vehicle": ("tool",),
    "tool": ("instrument", "clothing", "vehicle"),
    "building": (),
}
KIND_OF = {name: kind for kind, names in KINDS.items() for name in names}


def words_for(kind: str) -> dict[str, str]:
    """A kind as the templates name it."""
    one = f"piece of {kind}" if kind in PIECES else kind
    return {"x": kind, "one": one, "a": "food" if kind == "food" else article(one)}


def put(rng: random.Random, key: str, kind: str) -> str:
    """One of the ways to put a question about a kind."""
    return rng.choice(TEMPLATES[key]).format(**words_for(kind))


def ask_whether(rng: random.Random, kinds: Sequence[str]) -> Question | None:
    """Is it of a kind? Yes or no by a fair coin; ``kinds`` are all that can be said of it, the last one of ``KINDS``.

    None where that is not known.
    """
    if not kinds or kinds[-1] not in KINDS:
        return None
    if rng.random() < 0.5:
        return Question("kind", put(rng, "kind", rng.choice(kinds)), "yes", ("yes", "no"))
    others = [kind for kind in KINDS if kind not in kinds and kind not in DISPUTED[kinds[-1]]]
    return Question("kind", put(rng, "kind", rng.choice(others)), "no", ("yes", "no"))


def reworded(scene: Scene, turn: Question) -> Question:
    """A question about the one thing shown as it is, or put more freely; any other as it is."""
    rng = scene.rng
    names = {thing.name for thing in scene.things}
    if turn.task not in OPEN or len(names) != 1 or not scene.of_kind("object"):
        return turn
    kind = KIND_OF.get(next(iter(names)))
    if rng.random() >= OPEN[turn.task]:
        return turn
    if turn.task == "use":
        return Question("use", rng.choice(TEMPLATES["use"]), turn.answer, turn.choices)
    if kind is None:
        return turn
    if turn.task == "name":
        return Question("name", put(rng, "name", kind), turn.answer, turn.choices)
    return ask_whether(rng, (kind,)) or turn
