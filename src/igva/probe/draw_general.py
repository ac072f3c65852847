"""Places and captions."""

import random

from igva.probe import questions, scenes
from igva.probe.dealer import Dealer, Drawn
from igva.probe.draw_basic import objects
from igva.probe.facts import PLACES
from igva.probe.questions import Question, phrase
from igva.probe.scenes import Scene
from igva.probe.vocabulary import Split

LETTERS = ("a", "b", "c", "d")


def scene(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
    """Three things of one place: which place?"""
    place = dealer.deal("scene", tuple(PLACES))
    made = scenes.setting(rng, split)
    names = [name for name in PLACES[place] if scenes.stands_out(made, name)]
    while len(names) < 3:
        made = scenes.setting(rng, split)
        names = [name for name in PLACES[place] if scenes.stands_out(made, name)]
    objects(made, rng.sample(names, 3))
    return made, Question("scene", phrase(rng, "scene"), place, tuple(PLACES))


def caption(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
    """Which of four captions fits? They pair two names for the left with two for the right, so none stands out."""
    letter = dealer.deal("caption", LETTERS)
    while True:
        made = scenes.new_scene(rng, split)
        left, other_left, right, other_right = scenes.pick_names(made, 4)
        objects(made, [left, right])
        if questions.side_of("horizontal", *made.things) == "left":
            break
    return made, ask_caption(made, letter, (left, right), (other_left, other_right))


def ask_caption(scene: Scene, letter: str, pair: tuple[str, str], others: tuple[str, str]) -> Question:
    """Which of four captions fits two things side by side? The right one has ``letter``."""
    told = [(pair[0], others[1]), (others[0], pair[1]), others]
    scene.rng.shuffle(told)
    told.insert(LETTERS.index(letter), pair)
    options = "; ".join(f"{name}: {a} left of {b}" for name, (a, b) in zip(LETTERS, told, strict=True))
    return Question("caption", phrase(scene.rng, "caption", options=options), letter, LETTERS)
