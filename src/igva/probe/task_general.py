"""The category "General": what a thing is called, which place things belong to, which caption fits."""

import random

from igva.probe import drawing, pack, scenes
from igva.probe.edition import Split
from igva.probe.facts import KIND_OF, PLACES
from igva.probe.scenes import Scene
from igva.probe.task_base import Dealer, Drawn, Question, Task, kind_words, phrase

NAME_WORDINGS = (
    "What is in the picture?",
    "What object is shown here?",
    "What is this?",
    "Name the object in the image.",
    "What does the picture show?",
)
NAME_BY_KIND_WORDINGS = (  # of a thing of a known kind: see kind_words
    "What {one} is this?",
    "What kind of {x} is it?",
    "What kind of {x} is this?",
    "Which {one} do you see?",
    "Which {one} is shown here?",
    "What {one} does the picture show?",
)
NAME_BY_KIND = 0.5  # share of the questions about a training picture's one thing that are put so
SCENE_WORDINGS = (
    "Which place do these things belong to?",
    "Where would one find all of these things?",
    "What place do the things in the picture go with?",
    "To which place do the things shown belong?",
)
CAPTION_WORDINGS = (
    "Which caption fits the picture? {options}.",
    "Which of these describes the picture? {options}.",
    "Choose the right caption. {options}.",
)
LETTERS = ("a", "b", "c", "d")


def _draw_name(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
    name = dealer.deal("name", tuple(pack.nouns()))
    scene = drawing.setting(rng, split, name)
    drawing.draw_objects(scene, [name], drawing.scatter(rng, [drawing.side_of_one(rng, split, 64, 112)]))
    return scene, ask_name(scene, name)


def ask_name(scene: Scene, name: str) -> Question:
    """What is the one thing shown?"""
    choices = tuple(pack.nouns()) if name in pack.nouns() else (*pack.nouns(), *pack.photo_nouns())
    return Question("name", phrase(scene.rng, NAME_WORDINGS), name, choices)


def more_name(scene: Scene) -> list[Question]:
    """Where all objects are of one name and nothing else is drawn."""
    name = scene.only_name()
    return [] if name is None else [ask_name(scene, name)]


def _reword_name(scene: Scene, question: Question) -> Question:
    """By its kind, where it has one: "What animal is this?"."""
    name = scene.only_name()
    if name is None or scene.rng.random() >= NAME_BY_KIND or name not in KIND_OF:
        return question
    text = phrase(scene.rng, NAME_BY_KIND_WORDINGS, **kind_words(KIND_OF[name]))
    return Question("name", text, question.answer, question.choices)


NAME = Task("name", "General", _draw_name, more=more_name, reword=_reword_name)


def _draw_scene(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
    """Three things of one place: which place?"""
    place = dealer.deal("scene", tuple(PLACES))
    while True:
        scene = drawing.setting(rng, split)
        names = [name for name in PLACES[place] if drawing.stands_out(scene, name)]
        if len(names) >= 3:
            break
    drawing.draw_scattered(scene, rng.sample(names, 3))
    return scene, Question("scene", phrase(rng, SCENE_WORDINGS), place, tuple(PLACES))


SCENE = Task("scene", "General", _draw_scene)


def _draw_caption(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
    """Which of four captions fits? They pair two names for the left with two for the right, so none stands out."""
    letter = dealer.deal("caption", LETTERS)
    while True:
        scene = scenes.new_scene(rng, split)
        left, other_left, right, other_right = drawing.pick_names(scene, 4)
        drawing.draw_scattered(scene, [left, right])
        if scenes.side_of("horizontal", *scene.things) == "left":
            break
    return scene, _ask_caption(scene, letter, (left, right), (other_left, other_right))


def _ask_caption(scene: Scene, letter: str, pair: tuple[str, str], others: tuple[str, str]) -> Question:
    """Which of four captions fits two things side by side? The right one has ``letter``."""
    captions = [(pair[0], others[1]), (others[0], pair[1]), others]
    scene.rng.shuffle(captions)
    captions.insert(LETTERS.index(letter), pair)
    options = "; ".join(f"{name}: {a} left of {b}" for name, (a, b) in zip(LETTERS, captions, strict=True))
    return Question("caption", phrase(scene.rng, CAPTION_WORDINGS, options=options), letter, LETTERS)


def more_caption(scene: Scene) -> list[Question]:
    """Which of four captions fits two objects side by side?"""
    pair = sorted(scene.unlike_things(), key=lambda thing: thing.center[0])
    if len(pair) != 2 or len(scene.things) != 2 or not scene.of_kind("object"):
        return []
    if scenes.side_of("horizontal", *pair) != "left":
        return []
    left, right = (thing.name for thing in pair)
    others = drawing.pick_names(scene, 2, avoid=[left, right])
    return [_ask_caption(scene, scene.rng.choice(LETTERS), (left, right), (others[0], others[1]))]


CAPTION = Task("caption", "General", _draw_caption, more=more_caption, repeats="things")
