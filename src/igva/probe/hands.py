"""Other hands: a drawing rendered as somebody else would have drawn it, for training.

Every function takes and returns an RGBA picture and draws its choices from the ``random.Random`` handed in.
"""

import math
import random
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageFilter, ImageOps

Color = tuple[int, int, int]

SMALLEST = 48  # pixels: below it lines and lost parts leave nothing to recognise
PLAIN = 0.4  # share of the drawings that keep their own look


def render(rng: random.Random, sprite: Image.Image, paper: Color, side: int) -> Image.Image:
    """A drawing by another hand, or as it was.

    Args:
        paper: the colour that it will lie on; what is filled in may take it, ink keeps away from it.
        side: pixels that its longer side will have.
    """
    if rng.random() >= PLAIN:
        look = rng.choices(tuple(_LOOKS), tuple(_LOOKS.values()))[0]
        if side >= SMALLEST or look in (_gray, _hue):
            sprite = look(rng, sprite, paper)
        if rng.random() < 0.15:
            sprite = textured(rng, sprite)
    return reshaped(rng, sprite, side) if rng.random() >= PLAIN else sprite


def reshaped(rng: random.Random, sprite: Image.Image, side: int) -> Image.Image:
    """Now and then tilted, seen from the side, wobbly, or only a part of it; cropped to what is visible."""
    if rng.random() < 0.15:
        sprite = wobbled(sprite, _wobble(rng, sprite.size, rng.uniform(0.008, 0.028)))
    if rng.random() < 0.2:
        sprite = _leaning(rng, sprite)
    if rng.random() < 0.3:
        sprite = sprite.rotate(rng.uniform(-35, 35), Image.Resampling.BICUBIC, expand=True)
    if side >= SMALLEST and rng.random() < 0.15:
        sprite = _part(rng, sprite)
    return trimmed(sprite)


def trimmed(sprite: Image.Image) -> Image.Image:
    """Cropped to its visible pixels, or as it is where there are none."""
    return sprite.crop(sprite.getchannel("A").point([0] * 41 + [255] * 215).getbbox() or (0, 0, *sprite.size))


def ink_for(rng: random.Random, paper: Color) -> Color:
    """A dark ink, on dark paper a light one."""
    low, high = (0, 90) if luminance(paper) > 110 else (190, 255)
    return rng.randint(low, high), rng.randint(low, high), rng.randint(low, high)


def luminance(color: Color) -> float:
    """0-255."""
    return 0.3 * color[0] + 0.59 * color[1] + 0.11 * color[2]


def silhouette(rng: random.Random, sprite: Image.Image, paper: Color) -> Image.Image:
    """Its outline filled with one ink."""
    return _painted(Image.new("RGB", sprite.size, ink_for(rng, paper)), sprite)


def textured(rng: random.Random, sprite: Image.Image) -> Image.Image:
    """Coarse grain and a tone, as of paper."""
    width, height = sprite.size
    fine = _noise(rng, (height, width)) * rng.uniform(4, 14)
    coarse = Image.fromarray(_noise(rng, (8, 8)).astype(np.float32), "F").resize(sprite.size, Image.Resampling.BICUBIC)
    tone = np.array([rng.uniform(0.94, 1.0), rng.uniform(0.9, 0.98), rng.uniform(0.8, 0.96)])
    pixels = np.asarray(sprite.convert("RGB"), dtype=np.float64) * tone
    return _painted(_image(pixels + (fine + np.asarray(coarse) * rng.uniform(0, 10))[..., None]), sprite)


def wobbled(picture: Image.Image, shift: NDArray[np.float64]) -> Image.Image:
    """Every pixel fetched from (x, y) + ``shift``, which is (height, width, 2), in pixels."""
    width, height = picture.size
    rows, columns = np.mgrid[0:height, 0:width]
    x = np.clip(np.rint(columns + shift[..., 0]), 0, width - 1).astype(np.intp)
    y = np.clip(np.rint(rows + shift[..., 1]), 0, height - 1).astype(np.intp)
    return Image.fromarray(np.asarray(picture)[y, x], picture.mode)


def _wobble(rng: random.Random, size: tuple[int, int], reach: float) -> NDArray[np.float64]:
    """A smooth random field: (height, width, 2), in pixels, ``reach`` of the longer side."""
    knots = _noise(rng, (2, 6, 6)).astype(np.float32)
    smooth = [np.asarray(Image.fromarray(axis, "F").resize(size, Image.Resampling.BICUBIC)) for axis in knots]
    return np.stack(smooth, axis=-1).astype(np.float64) * reach * max(size)


def _noise(rng: random.Random, shape: tuple[int, ...]) -> NDArray[np.float64]:
    return np.random.default_rng(rng.getrandbits(32)).standard_normal(shape)


def _image(pixels: NDArray[np.float64]) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


def _painted(color: Image.Image, sprite: Image.Image) -> Image.Image:
    """``color`` with the transparency of ``sprite``."""
    color = color.convert("RGB")
    color.putalpha(sprite.getchannel("A"))
    return color


def _gray(rng: random.Random, sprite: Image.Image, paper: Color) -> Image.Image:
    return _painted(sprite.convert("L"), sprite)


def _hue(rng: random.Random, sprite: Image.Image, paper: Color) -> Image.Image:
    hue, saturation, value = sprite.convert("RGB").convert("HSV").split()
    shift = rng.randint(20, 235)
    turned = hue.point([(level + shift) % 256 for level in range(256)])
    return _painted(Image.merge("HSV", (turned, saturation, value)).convert("RGB"), sprite)


def _posterised(rng: random.Random, sprite: Image.Image, paper: Color) -> Image.Image:
    smooth = sprite.convert("RGB").filter(ImageFilter.MedianFilter(rng.choice((3, 5))))
    return _painted(ImageOps.posterize(smooth, rng.choice((1, 2, 2, 3))), sprite)


def _edges(sprite: Image.Image) -> Image.Image:
    """How much brightness and transparency change within 3×3 pixels ("L")."""
    smooth = Image.composite(sprite.convert("L"), Image.new("L", sprite.size, 255), sprite.getchannel("A"))
    strong = [
        ImageChops.subtract(channel.filter(ImageFilter.MaxFilter(3)), channel.filter(ImageFilter.MinFilter(3)))
        for channel in (smooth, sprite.getchannel("A"))
    ]
    return ImageChops.lighter(strong[0], strong[1])


def _paper(rng: random.Random, paper: Color) -> Color:
    """What is filled in between lines: often the ground itself, else white or nearly so."""
    if rng.random() < 0.5:
        return paper
    return (
        (255, 255, 255) if rng.random() < 0.6 else (rng.randint(235, 255), rng.randint(228, 248), rng.randint(205, 235))
    )


def _lines(rng: random.Random, sprite: Image.Image, paper: Color, strokes: Image.Image) -> Image.Image:
    ground = _paper(rng, paper)
    gain = rng.uniform(2.0, 3.5)
    strong = strokes.point([min(255, round(max(0, level - 24) * gain)) for level in range(256)])
    picture = Image.new("RGB", sprite.size, ground)
    picture.paste(ink_for(rng, ground), None, strong)
    return _painted(picture, sprite)


def _room(sprite: Image.Image) -> Image.Image:
    """With a transparent border, so that the outer line has room."""
    return ImageOps.expand(sprite, 2, (0, 0, 0, 0))


def _outlined(rng: random.Random, sprite: Image.Image, paper: Color) -> Image.Image:
    sprite = _room(sprite)
    return _lines(rng, sprite, paper, _edges(sprite))


def _sketched(rng: random.Random, sprite: Image.Image, paper: Color) -> Image.Image:
    """Outlines drawn twice, each with a hand that is not quite steady."""
    sprite = _room(sprite)
    edges = _edges(sprite)
    one, two = (wobbled(edges, _wobble(rng, sprite.size, rng.uniform(0.006, 0.016))) for _ in range(2))
    strokes = ImageChops.lighter(one, two)
    alpha = ImageChops.lighter(sprite.getchannel("A"), strokes.point([0] * 60 + [255] * 196))
    sprite = sprite.copy()
    sprite.putalpha(alpha)
    return _lines(rng, sprite, paper, strokes)


def _inked(rng: random.Random, sprite: Image.Image, paper: Color) -> Image.Image:
    """Its own colours, paler or not, with dark lines over them."""
    pale = Image.blend(sprite.convert("RGB"), Image.new("RGB", sprite.size, (255, 255, 255)), rng.uniform(0, 0.6))
    strong = _edges(sprite).point([min(255, max(0, level - 30) * 2) for level in range(256)])
    pale.paste((rng.randint(0, 60),) * 3, None, strong)
    return _painted(pale, sprite)


_LOOKS: dict[Callable[[random.Random, Image.Image, Color], Image.Image], int] = {
    _outlined: 4,
    _sketched: 3,
    _inked: 2,
    _hue: 4,
    _gray: 3,
    _posterised: 2,
    silhouette: 1,
}


def _leaning(rng: random.Random, sprite: Image.Image) -> Image.Image:
    """Seen from the side, from above or from below."""
    width, height = sprite.size
    corners = [(0, 0), (width, 0), (width, height), (0, height)]
    moved = [(x + rng.uniform(-0.12, 0.12) * width, y + rng.uniform(-0.12, 0.12) * height) for x, y in corners]
    room = math.ceil(0.13 * max(width, height))
    wide = ImageOps.expand(sprite, room, (0, 0, 0, 0))
    rows = []
    for (x, y), (from_x, from_y) in zip(moved, corners, strict=True):
        x, y, from_x, from_y = x + room, y + room, from_x + room, from_y + room
        rows += [[x, y, 1, 0, 0, 0, -from_x * x, -from_x * y], [0, 0, 0, x, y, 1, -from_y * x, -from_y * y]]
    target = [edge + room for corner in corners for edge in corner]
    solved = np.linalg.solve(np.array(rows, dtype=np.float64), np.array(target, dtype=np.float64))
    data = tuple(float(value) for value in solved)
    return wide.transform(wide.size, Image.Transform.PERSPECTIVE, data, Image.Resampling.BICUBIC)


def _part(rng: random.Random, sprite: Image.Image) -> Image.Image:
    """70 to 100 % of each side."""
    width, height = (max(1, round(edge * rng.uniform(0.7, 1.0))) for edge in sprite.size)
    left, top = rng.randint(0, sprite.width - width), rng.randint(0, sprite.height - height)
    return sprite.crop((left, top, left + width, top + height))
