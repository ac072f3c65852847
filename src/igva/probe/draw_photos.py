"""Pictures made for photographs, for training: one thing, several of them, or a background with nothing before it."""

import random
from collections.abc import Callable

import numpy as np

from igva.probe import follow_ups, pack, questions, scenes
from igva.probe.dealer import Dealer, Drawn
from igva.probe.draw_basic import PARTNERS
from igva.probe.questions import Question
from igva.probe.scenes import SIZE, Scene
from igva.probe.vocabulary import Split

OVER = 0.12  # of its side that a thing may reach past the border
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
    for _ in range(6):  # until it is plain to see
        made = scenes.photo_scene(rng, split)
        before = made.image.copy()
        side = rng.randint(round(0.35 * SIZE), round(0.9 * SIZE))
        over = round(OVER * side) if rng.random() < 0.3 else 0
        left, top = (rng.randint(-over, SIZE - side + over) for _ in range(2))
        scenes.draw_objects(made, [name], [(left, top, left + side, top + side)])
        apart = np.abs(np.asarray(made.image, dtype=np.int16) - np.asarray(before, dtype=np.int16)).max(axis=-1)
        if (apart > CLEAR).sum() > 0.6 * made.things[0].area:
            break
    if rng.random() < 0.6:
        return made, questions.ask_name(made, name)
    return made, _first(made, _ONE)


def photos(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
    """Two or three things, most of them photographs, or copies of one to count."""
    if dealer.number % 3 == 0:
        return _copies(rng, split, dealer)
    # Of names without photographs there are drawings: a picture may hold both.
    first = dealer.deal("photos", pack.photograph_names())
    made = scenes.photo_scene(rng, split)
    names = [first, *_company(rng, first, rng.randint(1, 2))]
    rng.shuffle(names)
    most = 108 if len(names) == 2 else 92
    scenes.draw_objects(made, names, scenes.scatter(rng, [rng.randint(56, most) for _ in names]))
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
    made = scenes.photo_scene(rng, split)
    others = rng.choice(PARTNERS)[count - 1] if rng.random() < 0.5 else 0
    total = count + others
    side = rng.randint(54, 92 if total <= 3 else 66 if total <= 5 else 58)
    boxes = scenes.scatter(rng, [round(side * rng.uniform(0.92, 1.08)) for _ in range(total)])
    countable = [name for name in pack.photograph_names() if pack.noun(name).countable]
    name = rng.choice(countable)
    (other,) = _company(rng, name, 1, countable)
    made.subject = name
    scenes.draw_objects(made, [name] * count + [other] * others, boxes)
    return made, questions.ask_count(made, name, count)


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
