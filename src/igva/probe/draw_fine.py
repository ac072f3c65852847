"""Small things, shades, patterns, and things in marked boxes."""

import random

import numpy as np
from PIL import Image, ImageDraw

from igva.probe import pack, scenes
from igva.probe.dealer import Dealer, Drawn
from igva.probe.draw_basic import objects
from igva.probe.questions import Question, absent_name, drawn_names, phrase
from igva.probe.scenes import Scene, Thing
from igva.probe.vocabulary import COLORS, SHAPES, Split

CORNERS = ("top left", "top right", "bottom left", "bottom right")
PATTERNS = ("striped", "dotted", "checkered", "plain", "zigzag")
HUES = ("red", "orange", "green", "blue", "purple", "brown")


def small(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
    """One thing of 18 to 30 pixels beside larger shapes: which of four is it?"""
    name = dealer.deal("small", tuple(pack.nouns()))
    made = scenes.background_for(rng, split, name)
    boxes = scenes.scatter(rng, [rng.randint(18, 30), rng.randint(44, 72), rng.randint(44, 72)])
    scenes.draw_objects(made, [name], boxes[:1])
    kinds, colors = scenes.shape_kinds(rng, 2), scenes.shape_colors(made, 2)
    scenes.draw_shapes(made, list(zip(kinds, colors, strict=True)), boxes[1:])
    made.alone = True
    choices = [name]
    while len(choices) < 4:
        choices.append(absent_name(rng, choices))
    choices.sort()
    told = ", ".join(choices[:3]) + f" or {choices[3]}"
    return made, Question("small", phrase(rng, "small", options=told), name, tuple(choices))


def shade(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
    """Four patches of one hue, one of them darker or lighter."""
    darker, corner = dealer.deal("shade", tuple((darker, corner) for darker in (True, False) for corner in CORNERS))
    hue = rng.choice(HUES)
    made = scenes.new_scene(rng, split, rng.choice([color for color in COLORS if color != hue]))
    base = np.array(COLORS[hue], dtype=np.float64)
    step = rng.uniform(0.16, 0.3)
    odd = base * (1 - step) if darker else base + (255 - base) * step
    side = rng.randint(64, 84)
    for place, name in enumerate(CORNERS):
        x, y = 18 + 106 * (place % 2) + rng.randint(-6, 6), 18 + 106 * (place // 2) + rng.randint(-6, 6)
        ink = tuple(int(value) for value in np.rint(odd if name == corner else base))
        mask = Image.new("L", (side, side), 255)
        made.image.paste(ink, (x, y), mask)
        thing = Thing("patch", hue, hue, (x, y, x + side, y + side), float(side * side))
        scenes.place(made, thing, mask, hue)
    return made, Question("shade", phrase(rng, "darker" if darker else "lighter"), corner, CORNERS)


def texture(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
    """Which pattern does a shape have?"""
    pattern = dealer.deal("texture", PATTERNS)
    made = scenes.new_scene(rng, split)
    first, second = scenes.shape_colors(made, 2)
    shape, side = rng.choice([name for name in SHAPES if name != "diamond"]), rng.randint(96, 150)
    (box,) = scenes.scatter(rng, [side])
    mask = scenes.shape_mask(rng, shape, side)
    cloth = Image.new("RGB", mask.size, scenes.jitter(rng, first))
    _weave(rng, cloth, pattern, scenes.jitter(rng, second))
    made.image.paste(cloth, box[:2], mask)
    area = float((np.asarray(mask) > 127).sum())
    corner = (box[0] + mask.width, box[1] + mask.height)
    thing = Thing("pattern", shape, first, (*box[:2], *corner), area)
    scenes.place(made, thing, mask, f"{pattern} {shape}")
    return made, Question("texture", phrase(rng, "texture", x=shape), pattern, PATTERNS)


def _weave(rng: random.Random, cloth: Image.Image, pattern: str, ink: scenes.Color) -> None:
    """Draw a pattern all over."""
    pen, (width, height), step = ImageDraw.Draw(cloth), cloth.size, rng.randint(14, 20)
    if pattern == "striped":
        for x in range(-height, width + height, step):
            pen.line([(x, 0), (x + height // 3, height)], fill=ink, width=step // 2)
    elif pattern == "dotted":
        for y in range(step // 2, height, step):
            for x in range(step // 2, width, step):
                pen.ellipse((x - step // 4, y - step // 4, x + step // 4, y + step // 4), fill=ink)
    elif pattern == "checkered":
        for y in range(0, height, step):
            for x in range((y // step % 2) * step, width, 2 * step):
                pen.rectangle((x, y, x + step - 1, y + step - 1), fill=ink)
    elif pattern == "zigzag":
        for y in range(0, height + step, step):
            points = [(x, y + (0 if i % 2 else step * 0.6)) for i, x in enumerate(range(0, width + step, step // 2))]
            pen.line(points, fill=ink, width=max(3, step // 4))


def refer(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
    """Three things in frames of different colours: what is in the frame of one colour?"""
    place = dealer.deal("refer", (0, 1, 2))
    made = scenes.new_scene(rng, split)
    objects(made, scenes.pick_names(made, 3))
    framed = sorted(made.of_kind("object"), key=lambda thing: thing.name)
    colors = scenes.shape_colors(made, 3)
    pen = ImageDraw.Draw(made.image)
    for thing, color in zip(framed, colors, strict=True):
        left, top, right, bottom = thing.box
        pen.rectangle((left - 3, top - 3, right + 2, bottom + 2), outline=scenes.jitter(rng, color), width=3)
        thing.color = color  # its frame's
    return made, ask_framed(made, framed[place])


def ask_framed(scene: Scene, thing: Thing) -> Question:
    """What is in the frame of this colour?"""
    return Question("refer", phrase(scene.rng, "refer", c=str(thing.color)), thing.name, drawn_names(scene))
