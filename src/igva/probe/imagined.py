"""Conversations about photographs that are not there.

No photographs of the thousand ImageNet classes ship with igva. A training picture that shows some photograph can stand
for one all the same: the trainer lets a share of what the classifier would say of some cells be another class, and the
conversation is about that class.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass

from igva.imagenet.classes import ImageClass, classes
from igva.probe import pack, task_knowledge
from igva.probe.drawing import absent_name
from igva.probe.facts import ALIKE, HABITATS, KINDS, LEGS, USES
from igva.probe.scenes import GRID, Scene
from igva.probe.task_base import YES_NO, Dealer, Question, kind_words, phrase
from igva.probe.task_general import NAME_BY_KIND_WORDINGS, NAME_WORDINGS
from igva.probe.task_hallucination import EXISTS_WORDINGS

LABEL_WORDINGS = (  # what a class of a known name is called more exactly: see kind_words
    "What kind of {x} is this?",
    "What kind of {x} is it?",
    "Which kind of {x} do you see?",
    "What type of {x} is shown here?",
)
GROUPS: dict[str, tuple[Mapping[str, tuple[str, ...]], tuple[str, ...]]] = {
    "use": (USES, task_knowledge.USE_WORDINGS),
    "legs": (LEGS, task_knowledge.LEGS_WORDINGS),
    "habitat": (HABITATS, task_knowledge.HABITAT_WORDINGS),
}
FEWEST = 3  # cells of a thing over which another may be imagined
MOST_TURNS = 4


@dataclass(frozen=True)
class Imagined:
    """Cells (0-63, row by row) that show, to ``share``, class ``index`` instead of what is there."""

    index: int
    share: float
    cells: tuple[int, ...]

    def record(self) -> dict[str, object]:
        """As it stands in data.json."""
        return {"class": self.index, "share": self.share, "cells": list(self.cells)}


Talk = tuple[Imagined, tuple[Question, ...]]


def conversations(scene: Scene, dealer: Dealer, deck: str) -> list[Talk]:
    """One or two conversations about imagined classes: over the one thing shown, or over regions of a photographed
    background with nothing before it. [] for any other scene.

    Of the classes that have one of the probe's names and of those that have none as many are dealt, each as often.
    """
    rng = scene.rng
    if not scene.things and not scene.photographed:
        return []
    if scene.things and (len(scene.things) > 1 or not scene.things[0].photo):
        return []
    halves = [tuple(one for one in classes() if (one.name is None) == nameless) for nameless in (False, True)]
    if scene.things and rng.random() < 0.5:
        halves = [rng.choice(halves)]
    talks: list[Talk] = []
    for half in halves:
        shown: ImageClass = dealer.deal(f"{deck} {half[0].name is None}", half)
        own = [cell for cell, owner in enumerate(scene.owners()) if owner == 0]
        cells = own if scene.things else region(rng)
        if len(cells) < FEWEST:
            continue
        share = round(rng.uniform(0.5, 1.0) if rng.random() < 0.8 else rng.uniform(0.2, 0.5), 2)
        turns = ask(rng, shown, [thing.name for thing in scene.things])
        talks.append((Imagined(shown.index, share, tuple(cells)), tuple(turns)))
    return talks


def region(rng: random.Random) -> list[int]:
    """20 to 64 cells that hang together: all of them, a rectangle, or a blob."""
    chance = rng.random()
    if chance < 0.3:
        return list(range(GRID * GRID))
    if chance < 0.65:
        width, height = rng.randint(5, GRID), rng.randint(4, GRID)
        left, top = rng.randint(0, GRID - width), rng.randint(0, GRID - height)
        return [row * GRID + column for row in range(top, top + height) for column in range(left, left + width)]
    cells = {rng.randint(2, 5) * GRID + rng.randint(2, 5)}
    wanted = rng.randint(20, 56)
    while len(cells) < wanted:
        edge = sorted({near for cell in cells for near in _neighbours(cell)} - cells)
        cells.add(rng.choice(edge))
    return sorted(cells)


def _neighbours(cell: int) -> list[int]:
    row, column = divmod(cell, GRID)
    around = [(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)]
    return [y * GRID + x for y, x in around if 0 <= y < GRID and 0 <= x < GRID]


def ask(rng: random.Random, shown: ImageClass, there: list[str]) -> list[Question]:
    """One to four turns about a class; ``there`` are the names of what is really shown: nothing is asked of them.

    What would give an answer away comes after it.
    """
    name, label = shown.name, shown.label
    answer = name or label
    turns: list[Question] = []
    if rng.random() < 0.6:
        turns.append(_ask_name(rng, shown))
    if name is not None and label != name and rng.random() < 0.6:
        turns.append(Question("name", phrase(rng, LABEL_WORDINGS, **kind_words(name)), label, ()))
    later: list[Question] = []
    kind_known = any(kind in turn.question for kind in shown.kinds for turn in turns)
    if not kind_known and rng.random() < 0.4 and (turn := _ask_kind(rng, shown)):
        later.append(turn)
    for task, (groups, wordings) in GROUPS.items():
        fitting = [group for group, members in groups.items() if answer in members]
        if len(fitting) == 1 and rng.random() < 0.35:
            if task == "use" and rng.random() < task_knowledge.OPEN_USE:
                wordings = task_knowledge.OPEN_USE_WORDINGS
            later.append(Question(task, phrase(rng, wordings), fitting[0], tuple(groups)))
    if not turns or rng.random() < 0.3:
        # "Is there a golden retriever?" before "What kind of dog is this?" would answer it.
        later.append(_ask_exists(rng, shown, there, by_label=name is None or (not turns and rng.random() < 0.5)))
    rng.shuffle(later)
    return [*turns, *later][:MOST_TURNS]


def _ask_name(rng: random.Random, shown: ImageClass) -> Question:
    kinds = shown.kinds
    if shown.name in kinds:
        kinds = kinds[kinds.index(shown.name) + 1 :]
    freely = bool(kinds) and rng.random() < 0.5
    text = phrase(rng, NAME_BY_KIND_WORDINGS, **kind_words(rng.choice(kinds))) if freely else phrase(rng, NAME_WORDINGS)
    return Question("name", text, shown.name or shown.label, tuple(pack.nouns()) if shown.name else ())


def _ask_kind(rng: random.Random, shown: ImageClass) -> Question | None:
    if rng.random() < 0.5 or not shown.kinds or shown.kinds[-1] not in KINDS:
        return task_knowledge.ask_whether(rng, shown.kinds)
    return Question("kind", phrase(rng, task_knowledge.KIND_WORDINGS), shown.kinds[-1], tuple(KINDS))


def _ask_exists(rng: random.Random, shown: ImageClass, there: list[str], by_label: bool) -> Question:
    """Is it there? Yes or no by a fair coin, of a class by its label, or else of one of the probe's names."""
    if rng.random() < 0.5:
        what, answer = shown.phrase if by_label or shown.name is None else pack.noun(shown.name).phrase, "yes"
    else:
        known = [*there, *([shown.name] if shown.name else [])]
        what, answer = (_other_class(rng, shown, known) if by_label else _other_name(rng, shown, known)), "no"
    return Question("exists", phrase(rng, EXISTS_WORDINGS, a=what), answer, YES_NO)


def _other_class(rng: random.Random, shown: ImageClass, known: list[str]) -> str:
    """A class that is nothing of what the one shown is, nor what is really there."""
    said = {*known, *shown.kinds, shown.label}
    while True:
        other = rng.choice(classes())
        clear = other.name is None or pack.apart(other.name, known)
        if clear and not said & {*other.kinds, other.label, other.name}:
            return other.phrase


def _other_name(rng: random.Random, shown: ImageClass, known: list[str]) -> str:
    """A name, half the time of the same kind, of which nobody would say that it is there."""
    alike = [name for name in ALIKE.get(shown.name or "", ()) if pack.apart(name, known) and name not in shown.kinds]
    if alike and rng.random() < 0.5:
        return pack.noun(rng.choice(alike)).phrase
    while True:
        name = absent_name(rng, known)
        if name not in shown.kinds and name not in shown.label:
            return pack.noun(name).phrase
