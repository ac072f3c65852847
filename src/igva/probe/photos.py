"""Pictures made for photographs, for training: one thing, several of them, or a background with nothing before it."""

import random
from collections.abc import Callable

import numpy as np

from igva.probe import drawing, pack, scenes, task_general, task_hallucination, task_knowledge, task_vision
from igva.probe.edition import PHOTO, PHOTOS, Split
from igva.probe.scenes import SIZE, Box, Scene
from igva.probe.task_base import Dealer, Drawn, Question

Plan = tuple[list[str], list[Box]]  # names, and a box for each

OVER = 0.12  # of its side that a thing may reach past the border
TRIES = 6
CLEAR = 40  # levels by which the better part of a thing differs from what it hides

# What a picture may be asked first, beside the name: what every thing allows last.
_ONE: tuple[Callable[[Scene], list[Question]], ...] = (
    task_knowledge.more_kind,
    task_knowledge.more_use,
    task_knowledge.more_legs,
    task_knowledge.more_habitat,
    task_hallucination.more_exists,
)
_SEVERAL: tuple[Callable[[Scene], list[Question]], ...] = (
    task_vision.more_position,
    task_vision.more_size,
    task_general.more_caption,
    task_hallucination.more_adversarial,
    task_hallucination.more_popular,
    task_hallucination.more_exists,
)


def _one(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
    """One thing, large, and what it is, or something else about it."""
    name = dealer.deal("photo", pack.photograph_names())

    def plan() -> Plan:
        side = rng.randint(round(0.35 * SIZE), round(0.9 * SIZE))
        over = round(OVER * side) if rng.random() < 0.3 else 0
        left, top = (rng.randint(-over, SIZE - side + over) for _ in range(2))
        return [name], [(left, top, left + side, top + side)]

    scene = _plain_to_see(rng, split, plan)
    if rng.random() < 0.6:
        return scene, task_general.ask_name(scene, name)
    return scene, _first(scene, _ONE)


def _several(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
    """Two or three things, most of them photographs, or copies of one to count."""
    if dealer.number % 3 == 0:
        return _copies(rng, split, dealer)
    # Of names without photographs there are drawings: a picture may hold both.
    first = dealer.deal("photos", pack.photograph_names())

    def plan() -> Plan:
        names = [first, *_company(rng, first, rng.randint(1, 2))]
        rng.shuffle(names)
        most = 108 if len(names) == 2 else 92
        return names, drawing.scatter(rng, [rng.randint(56, most) for _ in names])

    scene = _plain_to_see(rng, split, plan)
    return scene, _first(scene, _SEVERAL)


def no_thing(rng: random.Random, split: Split) -> Scene:
    """A photographed background alone."""
    while True:
        scene = scenes.photo_scene(rng, split)
        if scene.photographed:
            return scene


def _copies(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
    """As many as are asked for, and half the time another number of something else."""
    count = dealer.deal("photos counted", (1, 2, 3, 4, 5))
    others = task_vision.other_copies(rng, count)
    total = count + others
    countable = [name for name in pack.photograph_names() if pack.noun(name).countable]

    def plan() -> Plan:
        side = task_vision.side_of_copies(rng, total)
        name = rng.choice(countable)
        (other,) = _company(rng, name, 1, countable)
        sides = [round(side * rng.uniform(0.92, 1.08)) for _ in range(total)]
        return [name] * count + [other] * others, drawing.scatter(rng, sides)

    scene = _plain_to_see(rng, split, plan)
    scene.subject = scene.things[0].name
    return scene, task_vision.ask_count(scene, scene.subject, count)


def _plain_to_see(rng: random.Random, split: Split, plan: Callable[[], Plan]) -> Scene:
    """A scene drawn as planned: planned and drawn again, a few times, until the things stand out."""
    for _ in range(TRIES):
        scene = scenes.photo_scene(rng, split)
        before = scene.image.copy()
        names, boxes = plan()
        drawing.draw_objects(scene, names, boxes)
        apart = np.abs(np.asarray(scene.image, dtype=np.int16) - np.asarray(before, dtype=np.int16)).max(axis=-1)
        if (apart > CLEAR).sum() > 0.6 * sum(thing.area for thing in scene.things):
            break
    return scene


def _company(rng: random.Random, first: str, count: int, names: tuple[str, ...] | list[str] = ()) -> list[str]:
    """Names beside the first, none kin to another: of ``names``, else three of four times of those of photographs."""
    chosen: list[str] = []
    while len(chosen) < count:
        name = rng.choice(names or (pack.photograph_names() if rng.random() < 0.75 else tuple(pack.nouns())))
        if pack.apart(name, [first, *chosen]):
            chosen.append(name)
    return chosen


def _first(scene: Scene, ways: tuple[Callable[[Scene], list[Question]], ...]) -> Question:
    """A question that the scene allows, each way to ask as likely; the last way always finds one."""
    allowed = [turns for more in ways if (turns := more(scene))]
    return scene.rng.choice(scene.rng.choice(allowed))


DRAW: dict[str, Callable[[random.Random, Split, Dealer], Drawn]] = {PHOTO: _one, PHOTOS: _several}
