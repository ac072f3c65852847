"""Pictures of data: files, cells of tables, members of archives."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from PIL import Image

from igva.errors import UserError
from igva.model import pixels
from igva.model.pixels import MAX_PIXELS, decode, is_file, shown


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
        raise UserError(f"{shown(str(source))} cannot be read: {error.strerror or error}") from error


def open_image(
    source: str | ImageSource | IO[bytes], name: str | None = None, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Decode a picture to upright RGB; transparent parts become white, of an animation the first frame is taken.

    Args:
        source: a path, a stored picture or a binary stream.
        name: what messages call it; default: the path or the stored picture's name.
        max_pixels: width times height.

    Raises:
        UserError: missing, no regular file, or ``pixels.decode`` refuses it.
    """
    name = name or (str(source) if isinstance(source, (str, Path, StoredImage)) else "the image")
    if isinstance(source, (str, Path)):
        _check_file(Path(source), name)
    elif isinstance(source, StoredImage):
        source = io.BytesIO(image_bytes(source))
    try:
        return decode(source, shown(name), max_pixels)
    except pixels.TooManyPixels as error:
        raise TooManyPixels(str(error)) from error
    except pixels.BadImage as error:
        raise UserError(str(error)) from error


def _check_file(path: Path, name: str) -> None:
    name = shown(name)
    if not is_file(path):
        raise UserError(f"{name} does not exist: check the path")
    if path.is_dir():
        raise UserError(f"{name} is a folder: name an image file in it")
    if not path.is_file():
        raise UserError(f"{name} is no regular file: name an image file")
