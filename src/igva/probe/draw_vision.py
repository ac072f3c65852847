"""Depth, mirror images and turns."""

import functools
import random

import numpy as np
from PIL import Image

from igva.probe import pack, scenes
from igva.probe.dealer import Dealer, Drawn
from igva.probe.questions import Question, phrase
from igva.probe.scenes import Scene, Thing
from igva.probe.vocabulary import Split

TURNS = ("0", "90", "180", "270")


def depth(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
    """Two things that overlap: which is in front? Named in either order, either side."""
    front_first = dealer.deal("depth", (True, False))
    made = scenes.new_scene(rng, split)
    back, front = scenes.pick_names(made, 2)
    side = rng.randint(96, 112)
    shift = round(side * rng.uniform(0.5, 0.62))
    left, top = rng.randint(8, 216 - side - shift), rng.randint(24, 200 - side)
    boxes = [(left, top, left + side, top + side)]
    boxes.append((left + shift, top + rng.randint(-14, 14), left + shift + side, 0))
    boxes[1] = (boxes[1][0], boxes[1][1], boxes[1][2], boxes[1][1] + side)
    if rng.random() < 0.5:
        boxes.reverse()
    scenes.draw_objects(made, [back, front], boxes)
    made.alone = True
    pair = (front, back) if front_first else (back, front)
    return made, Question("depth", phrase(rng, "depth", x=pair[0], y=pair[1]), front, pair)


def mirror(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
    """Two copies side by side: is the right one mirrored?"""
    mirrored = dealer.deal("mirror", (True, False))
    made, name, sprite = _lopsided(rng, split, "mirror")
    other = sprite.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else sprite
    _beside(made, name, sprite, other)
    return made, Question("mirror", phrase(rng, "mirror"), "yes" if mirrored else "no", ("yes", "no"))


def turn(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
    """Two copies side by side: how far is the right one turned?"""
    degrees = dealer.deal("turn", TURNS)
    made, name, sprite = _lopsided(rng, split, "turn")
    _beside(made, name, sprite, sprite.rotate(-int(degrees), expand=True))
    return made, Question("turn", phrase(rng, "turn"), degrees, TURNS)


def _lopsided(rng: random.Random, split: Split, how: str) -> tuple[Scene, str, Image.Image]:
    """A scene and a drawing on it that clearly changes when it is mirrored or turned."""
    while True:
        made = scenes.new_scene(rng, split)
        (name,) = scenes.pick_names(made, 1)
        number = rng.randrange(len(pack.drawings(made.style, name)))
        drawing = pack.drawings(made.style, name)[number]
        clear = any(drawing is other for other in scenes.choice_of(made, name))
        if clear and lopsided(made.style, name, number, how):
            made.alone = True
            return made, name, drawing.image


@functools.cache
def lopsided(style: str, name: str, number: int, how: str) -> bool:
    """Whether a drawing, mirrored or turned by quarters, differs in more than a fifth of its pixels each time."""
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


def _beside(made: Scene, name: str, left: Image.Image, right: Image.Image) -> None:
    """Two pictures of one thing in the left and the right half."""
    side = made.rng.randint(78, 98)
    y = made.rng.randint(10, scenes.SIZE - 10 - side)
    for half, sprite in enumerate((left, right)):
        small = sprite.resize(
            [max(1, round(side * edge / max(sprite.size))) for edge in sprite.size], Image.Resampling.BICUBIC
        )
        x = 8 + 108 * half + (100 - small.width) // 2
        box = (x, y + (side - small.height) // 2)
        alpha = small.getchannel("A")
        made.image.paste(small.convert("RGB"), box, alpha)
        area = float((np.asarray(alpha) > 127).sum())
        thing = Thing("object", name, None, (*box, box[0] + small.width, box[1] + small.height), area)
        scenes.place(made, thing, alpha, name)
