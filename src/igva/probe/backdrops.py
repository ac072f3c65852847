"""Photographed and shaded backgrounds, and the wear of a picture on its way (blur, noise, JPEG): for training."""

import io
import math
import random

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from igva.probe import pack


def photographed(rng: random.Random, size: int) -> Image.Image:
    """A piece of a photograph, ``size`` pixels a side (RGB): mirrored, tilted, dimmed or blurred by chance."""
    photo = rng.choice(pack.backgrounds())
    if rng.random() < 0.3:
        angle = rng.uniform(-8, 8)
        photo = photo.rotate(angle, Image.Resampling.BILINEAR)
        edge = round(max(photo.size) * 0.1)  # what turning by 8 degrees leaves empty
        photo = photo.crop((edge, edge, photo.width - edge, photo.height - edge))
    side = round(min(photo.size) * rng.uniform(0.45, 1.0))
    left, top = rng.randint(0, photo.width - side), rng.randint(0, photo.height - side)
    photo = photo.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
    if rng.random() < 0.5:
        photo = photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if rng.random() < 0.7:
        photo = ImageEnhance.Brightness(photo).enhance(rng.uniform(0.5, 1.25))
    if rng.random() < 0.4:
        photo = ImageEnhance.Color(photo).enhance(rng.uniform(0.3, 1.3))
    if rng.random() < 0.5:
        photo = photo.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 3.0)))
    return photo


def shaded(rng: random.Random, size: int) -> Image.Image:
    """One colour that goes over into another, ``size`` pixels a side (RGB)."""
    ends = np.array([[rng.randint(0, 255) for _ in range(3)] for _ in range(2)], dtype=np.float64)
    axis = np.linspace(-1, 1, size)
    if rng.random() < 0.5:
        angle = rng.uniform(0, 2 * math.pi)
        ramp = (axis[None, :] * math.cos(angle) + axis[:, None] * math.sin(angle)) / 2.8285 + 0.5
    else:
        ramp = np.hypot(axis[None, :] - rng.uniform(-0.6, 0.6), axis[:, None] - rng.uniform(-0.6, 0.6)) / 2.3
    pixels = ends[0] + (ends[1] - ends[0]) * ramp[..., None]
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8), "RGB")


def worn(rng: random.Random, image: Image.Image, tinted: bool) -> Image.Image:
    """A picture (RGB) as cameras and the net hand it on: blurred, noisy, compressed by chance.

    ``tinted`` allows another brightness and a cast of colour too, where no colour will be asked.
    """
    if tinted and rng.random() < 0.3:
        cast = np.array([rng.uniform(0.86, 1.1) for _ in range(3)]) * rng.uniform(0.85, 1.1)
        image = Image.fromarray(np.clip(np.rint(np.asarray(image) * cast), 0, 255).astype(np.uint8), "RGB")
    if rng.random() < 0.2:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.4, 1.2)))
    if rng.random() < 0.2:
        grain = np.random.default_rng(rng.getrandbits(32)).standard_normal((*reversed(image.size), 3))
        noisy = np.asarray(image) + grain * rng.uniform(2, 9)
        image = Image.fromarray(np.clip(np.rint(noisy), 0, 255).astype(np.uint8), "RGB")
    if rng.random() < 0.35:
        packed = io.BytesIO()
        image.save(packed, "JPEG", quality=rng.randint(25, 85))
        image = Image.open(packed).convert("RGB")
    return image
