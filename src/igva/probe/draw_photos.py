"""Pictures made for photographs, for training: one thing, several of them, or a background with nothing before it."""

import random
from collections.abc import Callable

import numpy as np

from igva.probe import follow_ups, pack, questions, scenes
from igva.probe.dealer import Dealer, Drawn
from igva.probe.draw_basic import PARTNERS
from igva.probe.questions import Question
from igva.probe.scenes import SIZE, Box, Scene
from igva.probe.vocabulary import Split

Plan = tuple[list[str], list[Box]]  # names, and a box for each

OVER = 0.12  # of its side that a thing may reach past the border
TRIES = 6
CLEAR = 40  # levels by which the better part of a thing differs from what it hides

# What a picture may be asked first, beside the name: what every thing allows last.
_ONE: tuple[Callable[[Scene], list[Question]], ...] = (
    follow_ups.more_kind,
    follow_ups.more_use,
    follow_ups.more_legs,
    follow_ups.more_habitat,
    questions.more_exists,
)
_SEVERAL: tuple[Callable[[Scene], list[Question]], ...] = (
    questions.more_position,
    questions.more_size,
    follow_ups.more_caption,
    follow_ups.more_adversarial,
    follow_ups.more_popular,
    questions.more_exists,
)


def photo(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
    """One thing, large, and what it is, or something else about it."""
    name = dealer.deal("photo", pack.photograph_names())

    def plan() -> Plan:
        side = rng.randint(round(0.35 * SIZE), round(0.9 * SIZE))
        over = round(OVER * side) if rng.random() < 0.3 else 0
        left, top = (rng.randint(-over, SIZE - side + over) for _ in range(2))
        return [name], [(left, top, left + side, top + side)]

    made = _plain_to_see(rng, split, plan)
    if rng.random() < 0.6:
        return made, questions.ask_name(made, name)
    return made, _first(made, _ONE)


def photos(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
    """Two or three things, most of them photographs, or copies of one to count."""
    if dealer.number % 3 == 0:
        return _copies(rng, split, dealer)
    # Of names without photographs there are drawings: a picture may hold both.
    first = dealer.deal("photos", pack.photograph_names())

    def plan() -> Plan:
        names = [first, *_company(rng, first, rng.randint(1, 2))]
        rng.shuffle(names)
        most = 108 if len(names) == 2 else 92
        return names, scenes.scatter(rng, [rng.randint(56, most) for _ in names])

    made = _plain_to_see(rng, split, plan)
    return made, _first(made, _SEVERAL)


def no_thing(rng: random.Random, split: Split) -> Scene:
    """A photographed background alone."""
    while True:
        made = scenes.photo_scene(rng, split)
        if made.photographed:
            return made


def _copies(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
    """As many as are asked for, and half the time another number of something else."""
    count = dealer.deal("photos counted", (1, 2, 3, 4, 5))
    others = rng.choice(PARTNERS)[count - 1] if rng.random() < 0.5 else 0
    total = count + others
    countable = [name for name in pack.photograph_names() if pack.noun(name).countable]

    def plan() -> Plan:
        side = rng.randint(54, 92 if total <= 3 else 66 if total <= 5 else 58)
        name = rng.choice(countable)
        (other,) = _company(rng, name, 1, countable)
        sides = [round(side * rng.uniform(0.92, 1.08)) for _ in range(total)]
        return [name] * count + [other] * others, scenes.scatter(rng, sides)

    made = _plain_to_see(rng, split, plan)
    made.subject = made.things[0].name
    return made, questions.ask_count(made, made.subject, count)


def _plain_to_see(rng: random.Random, split: Split, plan: Callable[[], Plan]) -> Scene:
    """A scene drawn as planned: planned and drawn again, a few times, until the things stand out."""
    for _ in range(TRIES):
        made = scenes.photo_scene(rng, split)
        before = made.image.copy()
        names, boxes = plan()
        scenes.draw_objects(made, names, boxes)
        apart = np.abs(np.asarray(made.image, dtype=np.int16) - np.asarray(before, dtype=np.int16)).max(axis=-1)
        if (apart > CLEAR).sum() > 0.6 * sum(thing.area for thing in made.things):
            break
    return made


def _company(rng: random.Random, first: str, count: int, names: tuple[str, ...] | list[str] = ()) -> list[str]:
    """Names beside the first, none kin to another: of ``names``, else three of four times of those of photographs."""
    chosen: list[str] = []
    while len(chosen) < count:
        name = rng.choice(names or (pack.photograph_names() if rng.random() < 0.75 else tuple(pack.nouns())))
        if pack.apart(name, [first, *chosen]):
            chosen.append(name)
    return chosen


def _first(made: Scene, ways: tuple[Callable[[Scene], list[Question]], ...]) -> Question:
    """A question that the scene allows, each way to ask as likely; the last way always finds one."""
    found = [turns for more in ways if (turns := more(made))]
    return made.rng.choice(made.rng.choice(found))
