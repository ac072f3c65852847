"""Pictures on the server's own disk, for clients that may name them: inside the allowed folders and nowhere else."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from igva.serve.failure import Refusal
from igva.serve.fetch import too_large
from igva.serve.limits import Limits


class LocalFiles:
    """Reads ``file:///…`` URLs below the allowed folders.

    Args:
        folders: their own symbolic links are followed, once, now.
    """

    def __init__(self, folders: Iterable[str | Path] = (), limits: Limits | None = None):
        self.folders = [Path(folder).resolve(strict=True) for folder in folders]
        self.limits = limits or Limits()

    def read(self, url: str) -> bytes:
        """The bytes of a file.

        Raises:
            Refusal: one and the same for a file outside, a symbolic link, and a file that does not exist, so that
                nobody can find out what is on the disk.
        """
        parts = urlsplit(url)
        path = unquote(parts.path)
        if parts.netloc not in ("", "localhost") or "\0" in path or not path.startswith("/"):
            raise _refused()
        folder = next((folder for folder in self.folders if path.startswith(f"{folder}/")), None)
        if folder is None:
            raise _refused()
        names = path[len(str(folder)) + 1 :].split("/")
        if any(name in ("", ".", "..") for name in names):
            raise _refused()
        try:
            return self._open(folder, names)
        except OSError:
            raise _refused() from None

    def _open(self, folder: Path, names: list[str]) -> bytes:
        """Opens folder after folder without following links: nothing can be swapped between check and use."""
        at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for name in names[:-1]:
                below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
                os.close(at)
                at = below
            file = os.open(names[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=at)
        finally:
            os.close(at)
        with os.fdopen(file, "rb") as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise _refused()
            if status.st_size > self.limits.image_bytes:
                raise too_large(self.limits)
            return stream.read(self.limits.image_bytes + 1)


def _refused() -> Refusal:
    return Refusal(400, "this file may not be read here: send the picture as a data URL", "image_url")
