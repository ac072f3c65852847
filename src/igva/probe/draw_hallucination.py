"""Is it there? Absent things that are often drawn, or that would fit in; colours that belong to something else."""

import random

from igva.probe import pack, scenes
from igva.probe.dealer import Dealer, Drawn, stream
from igva.probe.draw_basic import objects
from igva.probe.facts import KINDS, POPULAR
from igva.probe.questions import Question, ask_exists, phrase
from igva.probe.scenes import Scene
from igva.probe.vocabulary import Split

ALIKE = {name: tuple(other for other in group if other != name) for group in KINDS.values() for name in group}


def _pair(dealer: Dealer, task: str, names: tuple[str, ...]) -> tuple[str, bool]:
    """What is asked and whether it is there: numbers 2j and 2j+1 ask for the same, one yes and one no, by lot."""
    pair = dealer.number // 2
    name = dealer.deal(task, names, pair)
    yes_first = bool(stream(dealer.seed, dealer.split, task, "coin", pair).getrandbits(1))
    return name, yes_first == (dealer.number % 2 == 0)


def popular(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
    """Among things that are often drawn: is another of them there?"""
    name, present = _pair(dealer, "exists_popular", POPULAR)
    made = scenes.setting(rng, split, name)
    return _ask(made, "exists_popular", name, present, POPULAR)


def adversarial(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
    """Beside something of its own kind: is it there?"""
    name, present = _pair(dealer, "exists_adversarial", tuple(sorted(ALIKE)))
    made = scenes.setting(rng, split, name)
    return _ask(made, "exists_adversarial", name, present, ALIKE[name])


def _ask(made: Scene, task: str, name: str, present: bool, company: tuple[str, ...]) -> Drawn:
    count = made.rng.randint(2, 3)
    free = [other for other in company if pack.apart(other, [name]) and scenes.stands_out(made, other)]
    made.rng.shuffle(free)
    names = [name] if present else []
    for other in free:
        if len(names) < count and pack.apart(other, names):
            names.append(other)
    if not names:  # nothing of the company can be seen on this background
        names = scenes.pick_names(made, 1, avoid=[name])
    made.rng.shuffle(names)
    objects(made, names)
    return made, ask_exists(made, pack.nouns()[name].phrase, present, task)


def attribute(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
    """Has a shape this colour, or is it the colour of another?"""
    true = dealer.deal("attribute", (True, False))
    made = scenes.new_scene(rng, split)
    kinds, colors = scenes.shape_kinds(rng, 3), scenes.shape_colors(made, 3)
    boxes = scenes.scatter(rng, [rng.randint(52, 80) for _ in kinds])
    scenes.draw_shapes(made, list(zip(kinds, colors, strict=True)), boxes)
    return made, ask_attribute(made, kinds[0], colors[0] if true else colors[1], true)


def ask_attribute(scene: Scene, shape: str, color: str, answer: bool) -> Question:
    """Has the shape this colour?"""
    text = phrase(scene.rng, "attribute", x=shape, c=color)
    return Question("attribute", text, "yes" if answer else "no", ("yes", "no"))
