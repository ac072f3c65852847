"""The published edition of the suite: its splits, and which task each of their pictures is drawn for. It never changes.

Picture number i of a split is dealt from a cycle of tasks, and what a training picture is asked besides is drawn from
the same random stream as the picture. One name more in a cycle, or in the list of follow-ups, would hand every later
picture to another task and stream. Figures are measured with these pictures, so the lists are written out here, and a
task that is registered later does not enter them: it is drawn where it is asked for by name (``tasks`` of
``igva.probe.sample`` and ``igva.probe.build``), from streams of its own. To publish new tasks is a decision for all of
them together: another ``VERSION``, these lists written anew, and figures of before that no longer compare.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from igva.errors import UserError
from igva.probe.pack import MIXED

VERSION = 2  # of what is drawn: another number, other pictures and questions


class Split(NamedTuple):
    """What a split may draw with, and its number, which each of its pictures carries (see scenes)."""

    number: int
    styles: tuple[str, ...]
    fonts: str  # file name prefix inside the pack
    conversations: bool  # several conversations per picture (training); otherwise one question
    suffix: float  # share of conversations whose questions end with SUFFIX
    varied: bool = False  # photographs, drawings by any hand and open questions too


SPLITS: dict[str, Split] = {
    "train": Split(0, ("noto", "fluent", MIXED, MIXED), "train-", True, 0.3, varied=True),
    "val": Split(1, ("noto", "fluent"), "train-", True, 0.3),
    "test": Split(2, ("noto", "fluent"), "test-", False, 0.0),
    "unseen": Split(3, ("twemoji",), "test-", False, 0.0),
}

# The usual answer-format request of visual question answering; IGVA's instruction encoder never sees it.
SUFFIX = "\nAnswer the question using a single word or phrase."

# The paper's six categories and what they are made of here.
PUBLISHED: dict[str, tuple[str, ...]] = {
    "General": ("name", "scene", "caption"),
    "Knowledge": ("kind", "use", "legs", "habitat", "flag"),
    "Chart & OCR": ("read", "chart", "pie", "line", "table", "document"),
    "Vision-Centric": ("count", "position", "size", "depth", "mirror", "turn"),
    "Fine-Grained": ("color", "small", "shade", "texture", "refer"),
    "Hallucination": ("exists", "exists_popular", "exists_adversarial", "attribute"),
}

# Evaluation: categories alike, tasks alike within each.
_LONGEST = math.lcm(*(len(tasks) for tasks in PUBLISHED.values()))
EVAL_CYCLE = tuple(tasks[number % len(tasks)] for number in range(_LONGEST) for tasks in PUBLISHED.values())

# Training: more pictures for what takes long to learn (places, numbers, words, 311 names) and what only its own scenes
# can carry, few for what others carry as well (color, exists) or what a few pictures of each thing teach (kind, use);
# two for those that are not named.
TRAIN_SHARES = {
    "name": 8,
    **dict.fromkeys(("read", "count", "refer", "position"), 4),
    **dict.fromkeys(("flag", "pie", "line", "table", "document", "size", "small", "shade", "attribute"), 3),
    **dict.fromkeys(("scene", "kind", "use", "legs", "habitat", "color", "texture"), 1),
    **dict.fromkeys(("exists", "exists_popular", "exists_adversarial"), 1),
}
# Beside them, two of five: pictures made for photographs, of one thing, of several, and of none (for imagined ones).
PHOTO, PHOTOS, NO_THING = "photo", "photos", "no thing"
PHOTO_SHARES = {PHOTO: 28, PHOTOS: 9, NO_THING: 10}


def _spread(shares: dict[str, int], rounds: int) -> list[list[str]]:
    """Each key as often as its share, dealt over ``rounds`` as evenly as can be."""
    dealt: list[list[str]] = [[] for _ in range(rounds)]
    for key, share in shares.items():
        for number in range(share):
            dealt[number * rounds // share].append(key)
    return dealt


_MOST = max(TRAIN_SHARES.values())
_DRAWN = [
    [task for tasks in PUBLISHED.values() for task in tasks if part < TRAIN_SHARES.get(task, 2)]
    for part in range(_MOST)
]
VAL_CYCLE = tuple(task for drawn in _DRAWN for task in drawn)
TRAIN_CYCLE = tuple(
    task for drawn, photos in zip(_DRAWN, _spread(PHOTO_SHARES, _MOST), strict=True) for task in (*drawn, *photos)
)

# The tasks of which a training picture that is drawn for another may be asked too, in the order in which they look
# at it.
FOLLOW_UPS = (
    *("exists", "name", "position", "size", "color", "chart", "count", "kind", "use", "legs", "habitat", "caption"),
    *("exists_popular", "exists_adversarial", "attribute", "refer", "pie", "table", "document"),
)
# Of the conversations so found, the share that is kept (others: all): the less, the more scenes carry it.
FOLLOW_UP_SHARES = {"color": 0.1, "exists": 0.3, "exists_adversarial": 0.5}


def split_of(name: str) -> Split:
    """The split of a name; raises ``UserError`` where there is none."""
    if name not in SPLITS:
        raise UserError(f"unknown split {name!r}; use one of {', '.join(SPLITS)}")
    return SPLITS[name]


def cycle_of(split: str) -> tuple[str, ...]:
    """What the pictures of a split are drawn for, again and again: tasks, in training also ``PHOTO``, ``PHOTOS`` and
    ``NO_THING``."""
    spec = split_of(split)
    return TRAIN_CYCLE if spec.varied else VAL_CYCLE if spec.conversations else EVAL_CYCLE


def scheduled(cycle: Sequence[str], index: int) -> tuple[str, int]:
    """What picture ``index`` of a cycle is drawn for, and how many earlier ones are drawn for the same."""
    rounds, position = divmod(index, len(cycle))
    task = cycle[position]
    return task, rounds * cycle.count(task) + cycle[:position].count(task)


def index_of(cycle: Sequence[str], task: str, number: int) -> int:
    """The index of the ``number``-th picture that a cycle draws for a task: ``scheduled`` the other way round."""
    positions = [position for position, other in enumerate(cycle) if other == task]
    rounds, which = divmod(number, len(positions))
    return rounds * len(cycle) + positions[which]
