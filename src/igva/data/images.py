"""Open a picture from a file or bytes, safely: the one place where igva decodes images."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import IO

from PIL import Image, ImageOps, UnidentifiedImageError

from igva.errors import UserError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
MAX_PIXELS = 64_000_000  # a 64-megapixel camera; decoding one takes about 200 MB


def open_image(source: str | Path | IO[bytes], name: str | None = None) -> Image.Image:
    """Decode a picture to upright RGB; transparent parts become white, of an animation the first frame is taken.

    Args:
        source: a path or a binary stream.
        name: what messages call it; default: the path.

    Raises:
        UserError: missing, not an image of an allowed format, truncated, empty or too large. The size is
            checked from the header, before anything is decoded.
    """
    name = name or (str(source) if isinstance(source, (str, Path)) else "the image")
    if isinstance(source, (str, Path)):
        path = Path(source)
        if path.is_dir():
            raise UserError(f"{name} is a folder: name an image file in it")
        if not path.exists():
            raise UserError(f"{name} does not exist: check the path")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit comes next
            image = Image.open(source, formats=FORMATS)
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise UserError(
                f"{name} has {width} × {height} pixels; at most {MAX_PIXELS // 1_000_000} million are accepted: "
                "make it smaller first"
            )
        if not width or not height:
            raise UserError(f"{name} is empty: {width} × {height} pixels")
        return _to_rgb(ImageOps.exif_transpose(image))
    except Image.DecompressionBombError as error:
        raise UserError(
            f"{name} has too many pixels: at most {MAX_PIXELS // 1_000_000} million are accepted"
        ) from error
    except UnidentifiedImageError as error:
        raise UserError(f"{name} is not an image igva reads: use {', '.join(FORMATS)}") from error
    except PermissionError as error:
        raise UserError(f"{name} cannot be read: permission denied") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise UserError(f"{name} is damaged or truncated ({error}): get a fresh copy") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in (
        "I",
        "I;16",
        "I;16B",
        "I;16L",
    ):  # 16-bit grey: Pillow's own conversion would clip to white
        image = image.convert("I").point(lambda value: value / 256).convert("L")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")
