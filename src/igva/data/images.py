"""Open a picture from a file or bytes, safely: the one place where igva decodes images."""

from __future__ import annotations

import functools
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from PIL import Image, ImageOps, UnidentifiedImageError

from igva.errors import UserError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
MAX_PIXELS = 64_000_000  # a 64-megapixel camera; decoding one takes about 200 MB


class TooManyPixels(UserError):
    """A picture has more pixels than are accepted."""


@dataclass(frozen=True)
class StoredImage:
    """A picture that is no file of its own: a cell of a table, a member of an archive.

    Attributes:
        name: what messages call it; two pictures of a data set never share one.
        read: gives the encoded bytes; called when they are needed. It must survive pickling, since data loading
            processes get a copy.
    """

    name: str
    read: Callable[[], bytes] = field(compare=False, repr=False)

    @classmethod
    def of(cls, name: str, data: bytes) -> StoredImage:
        """A picture whose bytes are at hand."""
        return cls(name, functools.partial(bytes, data))

    def __str__(self) -> str:
        return self.name


ImageSource = Path | StoredImage


def image_bytes(source: ImageSource) -> bytes:
    """The encoded bytes of a picture, not looked at.

    Raises:
        UserError: it is missing or cannot be read.
    """
    if isinstance(source, Path):
        _check_file(source, str(source))
    try:
        return source.read() if isinstance(source, StoredImage) else source.read_bytes()
    except OSError as error:
        raise UserError(f"{source} cannot be read: {error.strerror or error}") from error


def open_image(
    source: str | ImageSource | IO[bytes], name: str | None = None, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Decode a picture to upright RGB; transparent parts become white, of an animation the first frame is taken.

    Args:
        source: a path, a stored picture or a binary stream.
        name: what messages call it; default: the path or the stored picture's name.
        max_pixels: width times height.

    Raises:
        UserError: missing, not an image of an allowed format, truncated, empty or too large. The size is
            checked from the header, before anything is decoded.
    """
    name = name or (str(source) if isinstance(source, (str, Path, StoredImage)) else "the image")
    if isinstance(source, (str, Path)):
        _check_file(Path(source), name)
    elif isinstance(source, StoredImage):
        source = io.BytesIO(image_bytes(source))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit comes next
            image = Image.open(source, formats=FORMATS)
        width, height = image.size
        if width * height > max_pixels:
            raise TooManyPixels(
                f"{name} has {width} × {height} pixels; at most {max_pixels // 1_000_000} million are accepted: "
                "make it smaller first"
            )
        if not width or not height:
            raise UserError(f"{name} is empty: {width} × {height} pixels")
        return _to_rgb(ImageOps.exif_transpose(image))
    except Image.DecompressionBombError as error:
        raise TooManyPixels(
            f"{name} has too many pixels: at most {max_pixels // 1_000_000} million are accepted"
        ) from error
    except UnidentifiedImageError as error:
        raise UserError(f"{name} is not an image igva reads: use {', '.join(FORMATS)}") from error
    except PermissionError as error:
        raise UserError(f"{name} cannot be read: permission denied") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise UserError(f"{name} is damaged or truncated ({error}): get a fresh copy") from error


def _check_file(path: Path, name: str) -> None:
    if path.is_dir():
        raise UserError(f"{name} is a folder: name an image file in it")
    if not path.exists():
        raise UserError(f"{name} does not exist: check the path")


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
