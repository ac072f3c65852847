"""Files of data, read so that none of them takes more time or memory than what it says is worth.

A name may stand for a device that never ends or a pipe that nobody fills, a file may be a hole of a terabyte, and what
is compressed may unpack to any size.
"""

from __future__ import annotations

import bz2
import gzip
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from igva.errors import UserError

MAX_ENTRY = 16 * 2**20  # bytes of a sample's JSON: a conversation, whose pictures are files
CHUNK = 2**20
MOST_UNPACKED = 64 * 2**20  # bytes that any compressed file may unpack to
MOST_TIMES = 100  # its own size that a larger one may; pictures do not shrink, text to a tenth
# Not xz: a few of its bytes ask for a dictionary of gigabytes.
_UNPACKERS: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open}


def check_file(path: Path, missing: str = "check the path") -> None:
    """See that a path is a file that ends: no folder, pipe or device.

    Args:
        missing: the remedy where nothing is there.

    Raises:
        UserError: it is not.
    """
    if path.is_file():
        return
    if path.is_dir():
        raise UserError(f"{path} is a folder: name a file")
    if path.exists():
        raise UserError(f"{path} is no regular file but a device or a pipe: name a file")
    raise UserError(f"{path} does not exist: {missing}")


def check_name(name: str) -> None:
    """Raise ``UserError`` for what cannot be the name of a file, whether one is there or not."""
    try:
        Path(name).exists()
    except (OSError, ValueError) as error:
        raise UserError(f"{name[:60]}… ({len(name):,} characters) is no name of a file: check the path") from error


def lines(path: Path) -> Iterator[bytes | UserError]:
    """The lines of a file; behind one that is too long, which comes as its error, nothing is read.

    Only a line feed ends a line: ``str.splitlines`` would also cut at characters that JSON allows within text.
    """
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MAX_ENTRY + 1):
            number += 1
            if len(line) > MAX_ENTRY:
                yield UserError(f"{path}, line {number}: longer than {MAX_ENTRY >> 20} MB: is it JSON Lines?")
                return
            yield line


def whole_text(path: Path) -> bytes:
    """All bytes of a file of text.

    Raises:
        UserError: it holds a zero byte, which no text does, but every hole in a file.
    """
    parts = []
    with path.open("rb") as file:
        while part := file.read(CHUNK):
            if (offset := part.find(b"\0")) >= 0:
                raise UserError(f"{path}: byte {file.tell() - len(part) + offset} is zero: it is no text")
            parts.append(part)
    return b"".join(parts)


class TooMuch(Exception):
    """A file would take more memory or time than it is worth."""


class BoundedFile(io.RawIOBase):
    """A file, unpacked where it is compressed, of which so much is read as was allowed, and no more.

    What is compressed is read from front to back alone, so that nothing is unpacked twice.

    Raises:
        TooMuch: by ``read``, for more than ``allow`` said; by ``read`` and ``seek`` where it unpacks to many times its
            own size.
    """

    def __init__(self, path: Path):
        super().__init__()
        self._packed = path.open("rb")
        start = self._packed.read(4)
        self._packed.seek(0)
        unpack = next((each for magic, each in _UNPACKERS.items() if start.startswith(magic)), None)
        self._file: Any = self._packed if unpack is None else unpack(self._packed, "rb")
        # Bytes that may still be unpacked; None: there is nothing to unpack.
        self._unpacked_left = None if unpack is None else max(MOST_UNPACKED, MOST_TIMES * path.stat().st_size)
        self._place = 0
        self._allowed = 0

    def allow(self, size: int) -> None:
        """Let so many bytes be read from here on."""
        self._allowed = size

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= self._allowed:
            raise TooMuch(f"it wants {size:,} bytes at byte {self._place:,}, where {self._allowed:,} can be right")
        self._allowed -= size
        return self._take(size)

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if self._unpacked_left is None:
            self._place = self._file.seek(offset, whence)
            return self._place
        if whence != io.SEEK_SET or offset < self._place:
            raise io.UnsupportedOperation("what is compressed is read from front to back")
        while self._place < offset and self._take(min(offset - self._place, CHUNK)):
            pass
        return self._place

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        if not self.closed:
            self._file.close()
            self._packed.close()
        super().close()

    def _take(self, size: int) -> bytes:
        data: bytes = self._file.read(size)
        self._place += len(data)
        if self._unpacked_left is not None:
            self._unpacked_left -= len(data)
            if self._unpacked_left < 0:
                raise TooMuch(f"it unpacks to more than {MOST_TIMES} times its size, as no data does")
        return data
