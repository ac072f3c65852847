"""The category "Vision-Centric": numbers, sides, sizes, depth, mirror images and turns."""

import functools
import itertools
import random

import numpy as np
from PIL import Image

from igva.probe import describe, drawing, pack, scenes
from igva.probe.edition import Split
from igva.probe.scenes import Scene, Thing
from igva.probe.task_base import YES_NO, Dealer, Drawn, Question, Task, phrase

COUNT_WORDINGS = (
    "How many {xs} are there?",
    "How many {xs} are in the picture?",
    "How many {xs} can you see?",
    "What is the number of {xs} in the image?",
    "Count the {xs}.",
)
SIDE_WORDINGS = {
    "horizontal": (
        "Is the {x} to the left or to the right of the {y}?",
        "Is the {x} left or right of the {y}?",
        "On which side of the {y} is the {x}, left or right?",
        "Compared to the {y}, is the {x} on the left or on the right?",
    ),
    "vertical": (
        "Is the {x} above or below the {y}?",
        "Is the {x} placed above or below the {y}?",
        "Compared to the {y}, is the {x} above or below?",
        "Where is the {x} in relation to the {y}, above or below?",
    ),
}
FURTHEST_WORDINGS = {
    "left": (
        "Which object is furthest left?",
        "What is the leftmost object?",
        "Name the object on the far left.",
    ),
    "right": (
        "Which object is furthest right?",
        "What is the rightmost object?",
        "Name the object on the far right.",
    ),
}
LARGER_WORDINGS = (
    "Which is larger, the {x} or the {y}?",
    "Which is bigger, the {x} or the {y}?",
    "What is larger in the picture, the {x} or the {y}?",
    "Of the {x} and the {y}, which one is bigger?",
)
SMALLER_WORDINGS = (
    "Which is smaller, the {x} or the {y}?",
    "Which one is smaller, the {x} or the {y}?",
    "What is smaller in the picture, the {x} or the {y}?",
    "Of the {x} and the {y}, which one is smaller?",
)
LARGEST_WORDINGS = (
    "What is the largest object?",
    "Which object is the biggest?",
    "Name the largest object in the picture.",
)
DEPTH_WORDINGS = (
    "Which is in front, the {x} or the {y}?",
    "Which is nearer, the {x} or the {y}?",
    "Which one covers the other, the {x} or the {y}?",
    "Of the {x} and the {y}, which is in front?",
)
MIRROR_WORDINGS = (
    "Is the right one a mirror image of the left one?",
    "Is the right picture the left one mirrored?",
    "Has the right one been mirrored?",
)
TURN_WORDINGS = (
    "By how many degrees is the right one turned clockwise: 0, 90, 180 or 270?",
    "How many degrees clockwise has the right one been turned, 0, 90, 180 or 270?",
)
COUNTS = ("1", "2", "3", "4", "5")
TURNS = ("0", "90", "180", "270")
# Ways to give each of 1..5 another of 1..5, each once, with sums of at most 7.
PARTNERS = tuple(
    numbers
    for numbers in itertools.permutations((1, 2, 3, 4, 5))
    if all(count + number <= 7 for count, number in enumerate(numbers, 1))
)


def _draw_count(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
    """How many copies are there? Half the time beside copies of something else."""
    count = dealer.deal("count", (1, 2, 3, 4, 5))
    scene = scenes.new_scene(rng, split)
    others = other_copies(rng, count)
    side = side_of_copies(rng, count + others)
    boxes = drawing.scatter(rng, [round(side * rng.uniform(0.92, 1.08)) for _ in range(count + others)])
    if rng.random() < 0.3:
        kind, other = drawing.shape_kinds(rng, 2)
        scene.subject = kind
        colors = [drawing.shape_colors(scene, 1)[0] for _ in boxes]
        kinds = [kind] * count + [other] * others
        drawing.draw_shapes(scene, list(zip(kinds, colors, strict=True)), boxes)
    else:
        name, other = drawing.pick_names(scene, 2, countable=True)
        scene.subject = name
        drawing.draw_objects(scene, [name] * count + [other] * others, boxes)
    return scene, ask_count(scene, scene.subject, count)


def other_copies(rng: random.Random, count: int) -> int:
    """How many copies of something else stand beside ``count``: half the time none, else a number that is uniform too,
    so that they can be asked about as well, and at most seven things in all."""
    return rng.choice(PARTNERS)[count - 1] if rng.random() < 0.5 else 0


def side_of_copies(rng: random.Random, total: int) -> int:
    """The side in pixels of so many copies."""
    return rng.randint(54, 92 if total <= 3 else 66 if total <= 5 else 58)


def ask_count(scene: Scene, name: str, count: int) -> Question:
    """How many of an object or shape?"""
    return Question("count", phrase(scene.rng, COUNT_WORDINGS, xs=drawing.plural(name)), str(count), COUNTS)


def _more_count(scene: Scene) -> list[Question]:
    """The second kind of thing in a counting scene."""
    if scene.subject is None:
        return []
    others = [thing.name for thing in scene.things if thing.name != scene.subject]
    return [ask_count(scene, others[0], len(others))] if others else []


COUNT = Task("count", "Vision-Centric", _draw_count, more=_more_count, repeats="none")


def _draw_position(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
    """Four times on which side one thing is of another, then once which of three is furthest."""
    if dealer.number % 5 == 4:
        side = dealer.deal("furthest", ("left", "right"), dealer.number // 5)
        while True:
            scene = scenes.new_scene(rng, split)
            drawing.draw_scattered(scene, drawing.pick_names(scene, 3))
            if thing := _furthest(scene, side):
                return scene, Question("position", phrase(rng, FURTHEST_WORDINGS[side]), thing.name, scene.names())
    number = dealer.number // 5 * 4 + dealer.number % 5
    answer = dealer.deal("position", ("left", "right", "above", "below"), number)
    axis = "horizontal" if answer in ("left", "right") else "vertical"
    while True:
        scene = scenes.new_scene(rng, split)
        drawing.draw_scattered(scene, drawing.pick_names(scene, rng.randint(2, 3)))
        first, second = rng.sample(scene.things, 2)
        side_there = scenes.side_of(axis, first, second)
        if side_there:
            pair = (first, second) if side_there == answer else (second, first)
            return scene, _ask_side(scene, axis, *pair)


def _furthest(scene: Scene, side: str) -> Thing | None:
    """The object clearly furthest left or right: nearest edge and centre lead by 20 pixels."""
    sign = 1 if side == "left" else -1
    edge = 0 if side == "left" else 2
    first, second = sorted(scene.of_kind("object"), key=lambda thing: sign * thing.center[0])[:2]
    leads = (sign * (second.center[0] - first.center[0]), sign * (second.box[edge] - first.box[edge]))
    return first if min(leads) >= 20 else None


def _ask_side(scene: Scene, axis: str, thing: Thing, other: Thing) -> Question:
    """On which side of ``other`` is ``thing``? The caller has made sure that it is clear."""
    answer = scenes.side_of(axis, thing, other)
    assert answer is not None
    choices = ("left", "right") if axis == "horizontal" else ("above", "below")
    text = phrase(scene.rng, SIDE_WORDINGS[axis], x=thing.name, y=other.name)
    return Question("position", text, answer, choices)


def more_position(scene: Scene) -> list[Question]:
    """Up to three clear relations between different pairs, named in either order."""
    rng = scene.rng
    options = [
        (axis, rng.sample((a, b), 2))
        for a, b in itertools.combinations(scene.unlike_things(), 2)
        for axis in ("horizontal", "vertical")
        if scenes.side_of(axis, a, b)
    ]
    rng.shuffle(options)
    return [_ask_side(scene, axis, *pair) for axis, pair in options[:3]]


POSITION = Task("position", "Vision-Centric", _draw_position, more=more_position, repeats="things")


def _draw_size(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
    """Four times which of two is larger or smaller, then once which of three is the largest."""
    three = dealer.number % 5 == 4
    number = dealer.number // 5 * 4 + dealer.number % 5
    while True:
        scene = scenes.new_scene(rng, split)
        sides = [rng.randint(92, 108), rng.randint(50, 64)]
        if three or rng.random() < 0.3:
            sides.append(rng.randint(50, 64))
        names = drawing.pick_names(scene, len(sides))
        drawing.draw_objects(scene, names, drawing.scatter(rng, sides))
        big, *small = scene.things
        if not all(scenes.clearly_larger(big, other) for other in small):
            continue
        if three:
            return scene, Question("size", phrase(rng, LARGEST_WORDINGS), big.name, scene.names())
        larger, first = dealer.deal("size", ((1, 1), (1, 0), (0, 1), (0, 0)), number)
        wanted, other = (big, small[0]) if larger else (small[0], big)
        pair = (wanted, other) if first else (other, wanted)
        return scene, _ask_size(scene, bool(larger), *pair)


def _ask_size(scene: Scene, larger: bool, first: Thing, second: Thing) -> Question:
    """Which of two is larger (or smaller)? They are mentioned in the order given."""
    big, small = (first, second) if scenes.clearly_larger(first, second) else (second, first)
    text = phrase(scene.rng, LARGER_WORDINGS if larger else SMALLER_WORDINGS, x=first.name, y=second.name)
    return Question("size", text, (big if larger else small).name, (first.name, second.name))


def more_size(scene: Scene) -> list[Question]:
    """Up to three pairs of objects of clearly different size."""
    rng = scene.rng
    things = scene.unlike_things() if scene.of_kind("object") else []
    pairs = [
        rng.sample((a, b), 2)
        for a, b in itertools.combinations(things, 2)
        if scenes.clearly_larger(a, b) or scenes.clearly_larger(b, a)
    ]
    rng.shuffle(pairs)
    return [_ask_size(scene, rng.random() < 0.5, a, b) for a, b in pairs[:3]]


SIZE = Task("size", "Vision-Centric", _draw_size, more=more_size, repeats="things")


def _draw_depth(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
    """Two things that overlap: which is in front? Named in either order, either side."""
    front_first = dealer.deal("depth", (True, False))
    scene = scenes.new_scene(rng, split)
    back, front = drawing.pick_names(scene, 2)
    side = rng.randint(96, 112)
    shift = round(side * rng.uniform(0.5, 0.62))
    left, top = rng.randint(8, 216 - side - shift), rng.randint(24, 200 - side)
    lower = top + rng.randint(-14, 14)
    boxes = [(left, top, left + side, top + side), (left + shift, lower, left + shift + side, lower + side)]
    if rng.random() < 0.5:
        boxes.reverse()
    drawing.draw_objects(scene, [back, front], boxes)
    scene.alone = True
    pair = (front, back) if front_first else (back, front)
    return scene, Question("depth", phrase(rng, DEPTH_WORDINGS, x=pair[0], y=pair[1]), front, pair)


def _describe_depth(scene: Scene, first: Question) -> list[Question]:
    back, front = (pack.nouns()[thing.name].phrase for thing in scene.things)
    return [describe.description(scene, describe.THINGS_WORDINGS, f"{front} in front of {back}")]


DEPTH = Task("depth", "Vision-Centric", _draw_depth, describe=_describe_depth)


def _draw_mirror(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
    """Two copies side by side: is the right one mirrored?"""
    mirrored = dealer.deal("mirror", (True, False))
    scene, name, sprite = _lopsided(rng, split, "mirror")
    other = sprite.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else sprite
    _beside(scene, name, sprite, other)
    return scene, Question("mirror", phrase(rng, MIRROR_WORDINGS), "yes" if mirrored else "no", YES_NO)


def _draw_turn(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
    """Two copies side by side: how far is the right one turned?"""
    degrees = dealer.deal("turn", TURNS)
    scene, name, sprite = _lopsided(rng, split, "turn")
    _beside(scene, name, sprite, sprite.rotate(-int(degrees), expand=True))
    return scene, Question("turn", phrase(rng, TURN_WORDINGS), degrees, TURNS)


def _lopsided(rng: random.Random, split: Split, how: str) -> tuple[Scene, str, Image.Image]:
    """A scene and a drawing on it that clearly changes when it is mirrored or turned."""
    while True:
        scene = scenes.new_scene(rng, split)
        (name,) = drawing.pick_names(scene, 1)
        number = rng.randrange(len(pack.drawings(scene.style, name)))
        picked = pack.drawings(scene.style, name)[number]
        clear = any(picked is other for other in drawing.choice_of(scene, name))
        if clear and lopsided(scene.style, name, number, how):
            scene.alone = True
            return scene, name, picked.image


@functools.cache
def lopsided(style: str, name: str, number: int, how: str) -> bool:
    """Whether a drawing, mirrored or turned by quarters, differs by a quarter of its visible pixels each time."""
    sprite = pack.drawings(style, name)[number].image
    square = Image.new("RGBA", (64, 64))
    small = sprite.resize([max(1, round(64 * edge / max(sprite.size))) for edge in sprite.size])
    square.paste(small, ((64 - small.width) // 2, (64 - small.height) // 2))
    moves = [Image.Transpose.FLIP_LEFT_RIGHT]
    if how == "turn":
        moves = [Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270]
    pixels = np.asarray(square, dtype=np.float64)
    solid = (pixels[..., 3] > 40).sum()
    for move in moves:
        apart = np.abs(np.asarray(square.transpose(move), dtype=np.float64) - pixels).max(axis=-1) > 60
        if apart.sum() < 0.25 * solid:
            return False
    return True


def _beside(scene: Scene, name: str, left: Image.Image, right: Image.Image) -> None:
    """Two pictures of one thing in the left and the right half."""
    side = scene.rng.randint(78, 98)
    y = scene.rng.randint(10, scenes.SIZE - 10 - side)
    for half, sprite in enumerate((left, right)):
        small = sprite.resize(
            [max(1, round(side * edge / max(sprite.size))) for edge in sprite.size], Image.Resampling.BICUBIC
        )
        x = 8 + 108 * half + (100 - small.width) // 2
        box = (x, y + (side - small.height) // 2)
        alpha = small.getchannel("A")
        scene.image.paste(small.convert("RGB"), box, alpha)
        area = float((np.asarray(alpha) > 127).sum())
        thing = Thing("object", name, None, (*box, box[0] + small.width, box[1] + small.height), area)
        scene.add(thing, alpha, name)


MIRROR = Task("mirror", "Vision-Centric", _draw_mirror)
TURN = Task("turn", "Vision-Centric", _draw_turn)
