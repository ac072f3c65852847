"""Pixels of a picture: decoding, and upright RGB from whatever Pillow holds. Every path of igva comes through here."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, UnidentifiedImageError

from igva.errors import UserError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
MAX_PIXELS = 64_000_000  # a 64-megapixel camera; decoding one takes about 200 MB
MOST_PASSES = 12  # over so many pixels as are accepted: a progressive JPEG of a camera has about ten scans
ORIENTATION = 0x0112  # the EXIF tag
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class TooManyPixels(UserError):
    """A picture has more pixels than are accepted."""


def decode(source: str | Path | IO[bytes], name: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode an encoded picture to upright RGB; of an animation the first frame is taken.

    Args:
        source: a path or a binary stream.
        name: what messages call it.
        max_pixels: width times height.

    Raises:
        UserError: not an image of an allowed format, damaged, empty or too large. The size is checked from the header,
            before anything is decoded, and so is how often a progressive JPEG goes over its pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit comes next
            image = Image.open(source, formats=FORMATS)
        _check_size(image, name, max_pixels)
        image.load()
        return upright_rgb(image)
    except UserError:
        raise
    except Image.DecompressionBombError as error:
        raise TooManyPixels(
            f"{name} has too many pixels: at most {max_pixels // 1_000_000} million are accepted"
        ) from error
    except UnidentifiedImageError as error:
        raise UserError(f"{name} is not an image igva reads: use {', '.join(FORMATS)}") from error
    except PermissionError as error:
        raise UserError(f"{name} cannot be read: permission denied") from error
    except Exception as error:  # Pillow raises nearly anything on bytes that were not meant for it
        reason = str(error).partition("\n")[0][:200] or type(error).__name__
        raise UserError(f"{name} is damaged or truncated ({reason}): get a fresh copy") from error


def _check_size(image: Image.Image, name: str, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise TooManyPixels(
            f"{name} has {width} × {height} pixels; at most {max_pixels // 1_000_000} million are accepted: "
            "make it smaller first"
        )
    if not width or not height:
        raise UserError(f"{name} is empty: {width} × {height} pixels")
    if image.format == "JPEG" and ("progressive" in image.info or "progression" in image.info):
        scans = _scans(image)
        if scans * width * height > MOST_PASSES * max_pixels:
            raise TooManyPixels(f"{name} is a JPEG of {scans:,} scans: save it anew, not progressive")


def _scans(image: Image.Image) -> int:
    """How many scans a JPEG's bytes hold; what is opened is left where it was."""
    stream: IO[bytes] = image.fp  # type: ignore[attr-defined]  # while it is not loaded
    place = stream.tell()
    stream.seek(0)
    count = stream.read().count(b"\xff\xda")  # never within a scan: a 0xFF there is followed by 0 or a restart
    stream.seek(place)
    return count


def upright_rgb(image: Image.Image) -> Image.Image:
    """A picture as it is meant to be seen: turned as its EXIF orientation says, transparent parts white, RGB.

    Of 16-bit grey the upper 8 bits are taken. The result says nothing of the file any more, so that doing it again
    changes nothing.
    """
    turn = _TURNS.get(_orientation(image))
    rgb = _rgb(image)
    rgb = rgb.copy() if turn is None else rgb.transpose(turn)
    rgb.info = {}
    return rgb


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ORIENTATION)
    except Exception:  # odd metadata says nothing about intact pixels
        return 1
    return value if isinstance(value, int) else 1


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;16"):  # Pillow's own conversion would clip to white
        values = np.asarray(image.convert("I"))
        grey = np.clip(values // 256, 0, 255).astype(np.uint8)
        clear = image.info.get("transparency")
        return Image.fromarray(np.where(values == clear, 255, grey) if isinstance(clear, int) else grey).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        try:
            rgba = image.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
        except Exception:  # a transparent colour that this mode does not have
            image = image.copy()
            image.info.pop("transparency", None)
    return image.convert("RGB")
