"""The category "Fine-Grained": colours, small things, shades, patterns, and things in marked boxes."""

import random
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from igva.probe import describe, drawing, pack, scenes
from igva.probe.drawing import SHAPES
from igva.probe.edition import Split
from igva.probe.scenes import COLORS, Scene, Thing
from igva.probe.task_base import Dealer, Drawn, Question, Task, phrase

BACKGROUND_WORDINGS = (
    "What color is the background?",
    "What is the background color?",
    "Which color does the background have?",
    "Name the color of the background.",
)
SHAPE_COLOR_WORDINGS = (
    "What color is the {x}?",
    "What is the color of the {x}?",
    "Which color does the {x} have?",
    "Name the color of the {x}.",
)
SMALL_WORDINGS = (
    "What is the small thing: {options}?",
    "Which is the small thing, {options}?",
    "What is the tiny object: {options}?",
)
DARKER_WORDINGS = (
    "Which patch is the darkest?",
    "Where is the darkest patch?",
    "One patch is darker than the others: where?",
)
LIGHTER_WORDINGS = (
    "Which patch is the lightest?",
    "Where is the lightest patch?",
    "One patch is lighter than the others: where?",
)
TEXTURE_WORDINGS = (
    "Which pattern does the {x} have?",
    "What pattern is on the {x}?",
    "How is the {x} filled: striped, dotted, checkered, plain or zigzag?",
)
REFER_WORDINGS = (
    "What is in the {c} box?",
    "Which object is in the {c} frame?",
    "Name the object with the {c} box around it.",
)
CORNERS = ("top left", "top right", "bottom left", "bottom right")
PATTERNS = ("striped", "dotted", "checkered", "plain", "zigzag")
HUES = ("red", "orange", "green", "blue", "purple", "brown")


def _draw_color(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
    """The colour of a shape, or of the background with shapes or objects on it."""
    color, shaped = dealer.deal("color", tuple((color, shaped) for color in COLORS for shaped in (0, 1)))
    if shaped:
        scene = scenes.new_scene(rng, split, rng.choice([other for other in COLORS if other != color]))
        count = rng.randint(1, 4)
        colors = [color, *drawing.shape_colors(scene, count - 1, avoid=[color])]
        kinds = drawing.shape_kinds(rng, count)
        boxes = drawing.scatter(rng, [rng.randint(52, 88) for _ in colors])
        drawing.draw_shapes(scene, list(zip(kinds, colors, strict=True)), boxes)
        return scene, _ask_shape_color(scene, scene.things[0])
    scene = scenes.new_scene(rng, split, color)
    count = rng.randint(1, 3)
    if rng.random() < 0.5:
        pairs = list(zip(drawing.shape_kinds(rng, count), drawing.shape_colors(scene, count), strict=True))
        drawing.draw_shapes(scene, pairs, drawing.scatter(rng, [rng.randint(52, 96) for _ in pairs]))
    else:
        drawing.draw_scattered(scene, drawing.pick_names(scene, count))
    return scene, _ask_background(scene)


def _ask_background(scene: Scene) -> Question:
    return Question("color", phrase(scene.rng, BACKGROUND_WORDINGS), scene.background, tuple(COLORS))


def _ask_shape_color(scene: Scene, shape: Thing) -> Question:
    """The colour of a shape that occurs once."""
    assert shape.color is not None
    return Question("color", phrase(scene.rng, SHAPE_COLOR_WORDINGS, x=shape.name), shape.color, tuple(COLORS))


def _more_color(scene: Scene) -> list[Question]:
    """The background, where it has a colour, and up to two shapes that occur once, in any order."""
    rng = scene.rng
    questions = [_ask_background(scene)] if scene.background in COLORS else []
    shapes = scene.single_shapes()
    questions += [_ask_shape_color(scene, shape) for shape in rng.sample(shapes, min(2, len(shapes)))]
    rng.shuffle(questions)
    return questions


COLOR = Task("color", "Fine-Grained", _draw_color, more=_more_color)


def _draw_small(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
    """One thing of 18 to 30 pixels beside larger shapes: which of four is it?"""
    name = dealer.deal("small", tuple(pack.nouns()))
    scene = drawing.background_for(rng, split, name)
    boxes = drawing.scatter(rng, [rng.randint(18, 30), rng.randint(44, 72), rng.randint(44, 72)])
    drawing.draw_objects(scene, [name], boxes[:1])
    kinds, colors = drawing.shape_kinds(rng, 2), drawing.shape_colors(scene, 2)
    drawing.draw_shapes(scene, list(zip(kinds, colors, strict=True)), boxes[1:])
    scene.alone = True
    choices = [name]
    while len(choices) < 4:
        choices.append(drawing.absent_name(rng, choices))
    choices.sort()
    options = ", ".join(choices[:3]) + f" or {choices[3]}"
    return scene, Question("small", phrase(rng, SMALL_WORDINGS, options=options), name, tuple(choices))


SMALL = Task("small", "Fine-Grained", _draw_small, describe=describe.describe_things)


def _draw_shade(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
    """Four patches of one hue, one of them darker or lighter."""
    darker, corner = dealer.deal("shade", tuple((darker, corner) for darker in (True, False) for corner in CORNERS))
    hue = rng.choice(HUES)
    scene = scenes.new_scene(rng, split, rng.choice([color for color in COLORS if color != hue]))
    base = np.array(COLORS[hue], dtype=np.float64)
    step = rng.uniform(0.16, 0.3)
    odd = base * (1 - step) if darker else base + (255 - base) * step
    side = rng.randint(64, 84)
    for number, name in enumerate(CORNERS):
        x, y = 18 + 106 * (number % 2) + rng.randint(-6, 6), 18 + 106 * (number // 2) + rng.randint(-6, 6)
        ink = tuple(int(value) for value in np.rint(odd if name == corner else base))
        mask = Image.new("L", (side, side), 255)
        scene.image.paste(ink, (x, y), mask)
        thing = Thing("patch", hue, hue, (x, y, x + side, y + side), float(side * side))
        scene.add(thing, mask, hue)
    return scene, Question("shade", phrase(rng, DARKER_WORDINGS if darker else LIGHTER_WORDINGS), corner, CORNERS)


SHADE = Task("shade", "Fine-Grained", _draw_shade)


def _draw_texture(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
    """Which pattern does a shape have?"""
    pattern = dealer.deal("texture", PATTERNS)
    scene = scenes.new_scene(rng, split)
    first, second = drawing.shape_colors(scene, 2)
    shape, side = rng.choice([name for name in SHAPES if name != "diamond"]), rng.randint(96, 150)
    (box,) = drawing.scatter(rng, [side])
    draw_filled(scene, shape, pattern, (first, second), box)
    return scene, Question("texture", phrase(rng, TEXTURE_WORDINGS, x=shape), pattern, PATTERNS)


def draw_filled(scene: Scene, shape: str, pattern: str, colors: Sequence[str], box: scenes.Box) -> None:
    """Draw a shape into a square box, filled with a pattern in two colours."""
    rng = scene.rng
    mask = drawing.shape_mask(rng, shape, box[2] - box[0])
    cloth = Image.new("RGB", mask.size, scenes.jitter(rng, colors[0]))
    _draw_pattern(rng, cloth, pattern, scenes.jitter(rng, colors[1]))
    scene.image.paste(cloth, box[:2], mask)
    area = float((np.asarray(mask) > 127).sum())
    corner = (box[0] + mask.width, box[1] + mask.height)
    thing = Thing("pattern", shape, colors[0], (*box[:2], *corner), area)
    scene.add(thing, mask, f"{pattern} {shape}")


def _draw_pattern(rng: random.Random, cloth: Image.Image, pattern: str, ink: scenes.Color) -> None:
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


TEXTURE = Task("texture", "Fine-Grained", _draw_texture)


def _draw_refer(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
    """Three things in frames of different colours: what is in the frame of one colour?"""
    asked = dealer.deal("refer", (0, 1, 2))
    scene = scenes.new_scene(rng, split)
    drawing.draw_scattered(scene, drawing.pick_names(scene, 3))
    framed = sorted(scene.of_kind("object"), key=lambda thing: thing.name)
    colors = drawing.shape_colors(scene, 3)
    pen = ImageDraw.Draw(scene.image)
    for thing, color in zip(framed, colors, strict=True):
        left, top, right, bottom = thing.box
        pen.rectangle((left - 3, top - 3, right + 2, bottom + 2), outline=scenes.jitter(rng, color), width=3)
        thing.color = color  # its frame's
    return scene, _ask_framed(scene, framed[asked])


def _ask_framed(scene: Scene, thing: Thing) -> Question:
    """What is in the frame of this colour?"""
    return Question("refer", phrase(scene.rng, REFER_WORDINGS, c=str(thing.color)), thing.name, scene.names())


def _more_refer(scene: Scene) -> list[Question]:
    """What is in another of the frames?"""
    framed = [thing for thing in scene.of_kind("object") if thing.color is not None]
    return [_ask_framed(scene, thing) for thing in scene.rng.sample(framed, min(2, len(framed)))]


REFER = Task("refer", "Fine-Grained", _draw_refer, more=_more_refer)
