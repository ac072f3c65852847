"""Names, colours, numbers, existence, places, sizes, words and bars: one function per task."""

import itertools
import random
from collections.abc import Sequence

from igva.probe import pack, questions, scenes
from igva.probe.dealer import Dealer, Drawn, stream
from igva.probe.scenes import Scene
from igva.probe.vocabulary import COLORS, WORDS, Split


def name(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
    name = dealer.deal("name", tuple(pack.nouns()))
    scene = scenes.setting(rng, split, name)
    scenes.draw_objects(scene, [name], scenes.scatter(rng, [scenes.side_of_one(rng, split, 64, 112)]))
    return scene, questions.ask_name(scene, name)


def color(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
    color, shaped = dealer.deal("color", tuple((color, shaped) for color in COLORS for shaped in (0, 1)))
    if shaped:
        scene = scenes.new_scene(rng, split, rng.choice([other for other in COLORS if other != color]))
        count = rng.randint(1, 4)
        colors = [color, *scenes.shape_colors(scene, count - 1, avoid=[color])]
        kinds = scenes.shape_kinds(rng, count)
        boxes = scenes.scatter(rng, [rng.randint(52, 88) for _ in colors])
        scenes.draw_shapes(scene, list(zip(kinds, colors, strict=True)), boxes)
        return scene, questions.ask_shape_color(scene, scene.things[0])
    scene = scenes.new_scene(rng, split, color)
    count = rng.randint(1, 3)
    if rng.random() < 0.5:
        pairs = list(zip(scenes.shape_kinds(rng, count), scenes.shape_colors(scene, count), strict=True))
        scenes.draw_shapes(scene, pairs, scenes.scatter(rng, [rng.randint(52, 96) for _ in pairs]))
    else:
        objects(scene, scenes.pick_names(scene, count))
    return scene, questions.ask_background(scene)


def objects(scene: Scene, names: Sequence[str]) -> None:
    """Different objects, their longer sides 56-112 pixels, the more the smaller."""
    most = {1: 112, 2: 108, 3: 96}[len(names)]
    sides = [scene.rng.randint(56, most) for _ in names]
    scenes.draw_objects(scene, names, scenes.scatter(scene.rng, sides))


# Ways to give each of 1..5 another of 1..5, each once, with sums of at most 7.
PARTNERS = tuple(
    numbers
    for numbers in itertools.permutations((1, 2, 3, 4, 5))
    if all(count + number <= 7 for count, number in enumerate(numbers, 1))
)


def count(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
    count = dealer.deal("count", (1, 2, 3, 4, 5))
    scene = scenes.new_scene(rng, split)
    # Beside them, half the time: copies of something else, in numbers that are uniform too, so that
    # they can be asked about as well, and at most seven things in all.
    others = rng.choice(PARTNERS)[count - 1] if rng.random() < 0.5 else 0
    total = count + others
    side = rng.randint(54, 92 if total <= 3 else 66 if total <= 5 else 58)
    boxes = scenes.scatter(rng, [round(side * rng.uniform(0.92, 1.08)) for _ in range(total)])
    if rng.random() < 0.3:
        kind, other = scenes.shape_kinds(rng, 2)
        scene.subject = kind
        colors = [scenes.shape_colors(scene, 1)[0] for _ in boxes]
        kinds = [kind] * count + [other] * others
        scenes.draw_shapes(scene, list(zip(kinds, colors, strict=True)), boxes)
    else:
        name, other = scenes.pick_names(scene, 2, countable=True)
        scene.subject = name
        scenes.draw_objects(scene, [name] * count + [other] * others, boxes)
    return scene, questions.ask_count(scene, scene.subject, count)


def exists(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
    # Numbers 2j and 2j+1 ask for the same name, one yes and one no, in an order drawn by lot.
    pair = dealer.number // 2
    name = dealer.deal("exists", tuple(pack.nouns()), pair)
    yes_first = bool(stream(dealer.seed, dealer.split, "coin", pair).getrandbits(1))
    present = yes_first == (dealer.number % 2 == 0)
    scene = scenes.setting(rng, split, name)
    count = rng.randint(1, 3)
    others = scenes.pick_names(scene, count - present, avoid=[name])
    names = [*([name] if present else []), *others]
    rng.shuffle(names)
    objects(scene, names)
    return scene, questions.ask_exists(scene, pack.nouns()[name].phrase, present)


def position(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
    # Four relations, then one "which is furthest".
    if dealer.number % 5 == 4:
        side = dealer.deal("furthest", ("left", "right"), dealer.number // 5)
        while True:
            scene = scenes.new_scene(rng, split)
            objects(scene, scenes.pick_names(scene, 3))
            if thing := questions.furthest(scene, side):
                return scene, questions.ask_furthest(scene, side, thing)
    number = dealer.number // 5 * 4 + dealer.number % 5
    answer = dealer.deal("position", ("left", "right", "above", "below"), number)
    axis = "horizontal" if answer in ("left", "right") else "vertical"
    while True:
        scene = scenes.new_scene(rng, split)
        objects(scene, scenes.pick_names(scene, rng.randint(2, 3)))
        first, second = rng.sample(scene.things, 2)
        side_there = questions.side_of(axis, first, second)
        if side_there:
            pair = (first, second) if side_there == answer else (second, first)
            return scene, questions.ask_position(scene, axis, *pair)


def size(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
    # Four comparisons, then one "which is the largest" of three.
    three = dealer.number % 5 == 4
    number = dealer.number // 5 * 4 + dealer.number % 5
    while True:
        scene = scenes.new_scene(rng, split)
        sides = [rng.randint(92, 108), rng.randint(50, 64)]
        if three or rng.random() < 0.3:
            sides.append(rng.randint(50, 64))
        names = scenes.pick_names(scene, len(sides))
        scenes.draw_objects(scene, names, scenes.scatter(rng, sides))
        big, *small = scene.things
        if not all(questions.clearly_larger(big, other) for other in small):
            continue
        if three:
            return scene, questions.ask_largest(scene, big)
        larger, first = dealer.deal("size", ((1, 1), (1, 0), (0, 1), (0, 0)), number)
        wanted, other = (big, small[0]) if larger else (small[0], big)
        pair = (wanted, other) if first else (other, wanted)
        return scene, questions.ask_size(scene, bool(larger), *pair)


def read(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
    word = dealer.deal("read", WORDS)
    scene = scenes.new_scene(rng, split)
    if rng.random() < 0.4:
        above = rng.random() < 0.5
        side = rng.randint(60, 96)
        top = rng.randint(10, 20) if above else scenes.SIZE - side - rng.randint(10, 20)
        left = rng.randint(scenes.MARGIN, scenes.SIZE - scenes.MARGIN - side)
        scenes.draw_objects(scene, scenes.pick_names(scene, 1), [(left, top, left + side, top + side)])
        scenes.draw_word(scene, word, *((top + side + 8, scenes.SIZE - 10) if above else (10, top - 8)))
    else:
        scenes.draw_word(scene, word, 16, scenes.SIZE - 16)
    return scene, questions.ask_read(scene, word)


def chart(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
    color, which = dealer.deal("chart", tuple((color, which) for color in COLORS for which in ("tallest", "shortest")))
    scene = scenes.new_scene(rng, split, rng.choice([other for other in COLORS if other != color]))
    count = rng.randint(3, 4)
    while True:  # neighbours in rank differ by one at least, the answers by two from the next
        values = sorted(rng.sample(range(1, 10), count))
        if values[1] - values[0] >= 2 and values[-1] - values[-2] >= 2:
            break
    answer = values.pop() if which == "tallest" else values.pop(0)
    colors = scenes.shape_colors(scene, count - 1, avoid=[color])
    bars = [(color, answer), *zip(colors, values, strict=True)]
    rng.shuffle(bars)
    scenes.draw_chart(scene, bars)
    return scene, questions.ask_chart(scene, which)
