"""Pictures of data: files, cells of tables, members of archives."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from PIL import Image

from igva.errors import UserError
from igva.model import pixels
from igva.model.pixels import MAX_PIXELS, check_file, check_length, decode, shown


class TooManyPixels(UserError):
    """A picture has more pixels than are accepted."""


class MissingImage(UserError):
    """A picture is not there."""


@dataclass(frozen=True)
class StoredImage:
    """A picture that is no file of its own: a cell of a table, a member of an archive.

    Attributes:
        name: what messages call it; two pictures of a data set never share one.
        read: gives the encoded bytes; called when they are needed. It must survive pickling, since data loading
            processes get a copy.
        held: bytes that it keeps in memory.
    """

    name: str
    read: Callable[[], bytes] = field(compare=False, repr=False)
    held: int = field(default=0, compare=False, repr=False)

    @classmethod
    def of(cls, name: str, data: bytes) -> StoredImage:
        """A picture whose bytes are at hand."""
        return cls(name, functools.partial(bytes, data), len(data))

    def __str__(self) -> str:
        return self.name


ImageSource = Path | StoredImage


def image_bytes(source: ImageSource) -> bytes:
    """The encoded bytes of a picture, not looked at.

    Raises:
        UserError: it is missing, no regular file, longer than any picture, or cannot be read.
    """
    name = shown(str(source))
    try:
        with _as_user_errors():
            if isinstance(source, Path):
                check_file(source, name)
                return source.read_bytes()
            data = source.read()
            check_length(len(data), name)
            return data
    except FileNotFoundError as error:
        raise MissingImage(f"{name} cannot be read: {error.strerror or error}") from error
    except OSError as error:
        raise UserError(f"{name} cannot be read: {error.strerror or error}") from error


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
    if isinstance(source, StoredImage):
        source = io.BytesIO(image_bytes(source))
    with _as_user_errors():
        return decode(source, shown(name), max_pixels)


@contextmanager
def _as_user_errors() -> Iterator[None]:
    try:
        yield
    except pixels.TooManyPixels as error:
        raise TooManyPixels(str(error)) from error
    except pixels.NoSuchImage as error:
        raise MissingImage(str(error)) from error
    except pixels.BadImage as error:
        raise UserError(str(error)) from error
