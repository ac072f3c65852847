"""Small changes to a picture that leave every answer about it true.

It is never mirrored or rotated: left must stay left, and writing must stay readable.
"""

from __future__ import annotations

import io
import math
import random

from PIL import Image, ImageEnhance

LEAST_AREA = 0.85
JITTER = 0.15  # of brightness, contrast and colour, to either side
JPEG_SHARE = 0.5
JPEG_QUALITY = (50, 95)
_JPEG_SIDE = 65_500  # libjpeg writes no longer one


def augment_image(image: Image.Image, rng: random.Random) -> Image.Image:
    """Crop a little, change brightness, contrast and colour, and now and then compress.

    Args:
        image: RGB.
        rng: decides; the same state gives the same picture.

    Returns:
        A picture of the same size.
    """
    image = _crop(image, rng)
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhance(image).enhance(rng.uniform(1 - JITTER, 1 + JITTER))
    quality = rng.randint(*JPEG_QUALITY)
    if rng.random() < JPEG_SHARE and max(image.size) <= _JPEG_SIDE:
        image = _compress(image, quality)
    return image


def _crop(image: Image.Image, rng: random.Random) -> Image.Image:
    """A part of at least ``LEAST_AREA``, anywhere, stretched to the old size."""
    area, share = rng.uniform(LEAST_AREA, 1), rng.random()
    # How much of the area is taken from the width, the rest from the height.
    width, height = image.width * math.pow(area, share), image.height * math.pow(area, 1 - share)
    left, top = rng.uniform(0, image.width - width), rng.uniform(0, image.height - height)
    box = (left, top, min(left + width, image.width), min(top + height, image.height))
    return image.resize(image.size, Image.Resampling.BICUBIC, box=box)


def _compress(image: Image.Image, quality: int) -> Image.Image:
    data = io.BytesIO()
    image.save(data, "JPEG", quality=quality)
    return Image.open(data).convert("RGB")
