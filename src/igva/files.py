"""Files and folders written so that nobody ever sees half of one, and told apart by their hashes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from igva.errors import UserError

STALE_SECONDS = 24 * 3600  # a temporary folder older than this belongs to a process that was killed


def check_free(target: Path) -> None:
    """Raise ``UserError`` unless ``target`` can become a new folder: it does not exist, or is empty."""
    if target.exists() and not (target.is_dir() and next(target.iterdir(), None) is None):
        raise UserError(f"{target} exists already: name a new or empty folder")


@contextmanager
def result_folder(target: Path) -> Iterator[Path]:
    """``new_folder`` for a place that a user named: what is there is never replaced.

    Raises:
        UserError: ``target`` is not free, before or after the work, or cannot be written.
    """

    def is_good(folder: Path) -> bool:
        check_free(folder)  # it may have been filled meanwhile
        return False

    check_free(target)
    with write_errors(target), new_folder(target, is_good) as folder:
        yield folder


def sha256_of(path: Path) -> str:
    """The file's sha256 as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def new_file(path: Path, *, several_writers: bool = False) -> Iterator[Path]:
    """Yield a temporary sibling of ``path`` to write; flush it to disk and rename it to ``path`` on leaving.

    What is left of a process that was killed is overwritten by the next; with ``several_writers`` each has a name of
    its own, and the last one's file stays.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part" if several_writers else f".{path.name}.part")
    try:
        yield part
        _flush_file(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_file(path: Path, content: str | bytes) -> None:
    """``new_file`` with this content, text in UTF-8."""
    with new_file(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, value: Any) -> None:
    """``write_file`` with this value as indented JSON; names that are no UTF-8 are escaped."""
    try:
        content = json.dumps(value, indent=2, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        content = json.dumps(value, indent=2).encode()
    write_file(path, content + b"\n")


@contextmanager
def write_errors(target: Path) -> Iterator[None]:
    """What goes wrong while something is written to ``target``, such as a full disk, becomes a ``UserError``."""
    try:
        yield
    except (OSError, SafetensorError) as error:  # the latter is what a full disk looks like to safetensors
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{target} cannot be written: {reason}: make room, or choose another place") from error


@contextmanager
def new_folder(target: Path, is_good: Callable[[Path], bool]) -> Iterator[Path]:
    """Yield an empty sibling of ``target`` to fill; flush it to disk and rename it to ``target`` on leaving.

    If ``target`` exists by then and ``is_good(target)`` (another process was faster), that one stays and ours
    goes; a bad one is replaced. Whatever happens, the temporary folder is gone afterwards.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    # A sibling, because a rename is atomic only within one file system.
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield temporary
        _make_readable(temporary)
        flush_tree(temporary)
        _install(temporary, target, is_good)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_stale(folder: Path) -> None:
    """Temporary folders of processes that were killed; younger ones may be in use."""
    for path in folder.glob(".*-*"):
        try:
            if path.is_dir() and time.time() - path.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(path, ignore_errors=True)
        except OSError:  # another process removes it at the same time
            continue


def _make_readable(folder: Path) -> None:
    """mkdtemp and safetensors create for the owner alone (0700, 0600); a shared cache is read by others."""
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)


def flush_tree(folder: Path) -> None:
    """fsync every file and directory under ``folder``, itself included."""
    for path in [*folder.rglob("*"), folder]:
        if path.is_dir():
            flush_directory(path)
        else:
            _flush_file(path)


def _flush_file(path: Path) -> None:
    with path.open("rb+") as file:  # Windows flushes only what is open for writing
        os.fsync(file.fileno())


def _install(temporary: Path, target: Path, is_good: Callable[[Path], bool]) -> None:
    """Rename onto ``target``. Loops because other processes may put a folder there between two steps."""
    while not is_good(target):
        if target.exists():
            aside = Path(tempfile.mkdtemp(prefix=f".{target.name}-old-", dir=target.parent))
            try:
                target.rename(aside / "old")
            except FileNotFoundError:
                pass  # another process moved it aside first
            finally:
                shutil.rmtree(aside, ignore_errors=True)
        try:
            temporary.rename(target)
        except OSError:
            if not target.exists():  # not a race: a real failure
                raise
            continue
        flush_directory(target.parent)
        return


def flush_directory(path: Path) -> None:
    """fsync a directory: the names in it, not what they stand for."""
    if sys.platform == "win32":  # a directory cannot be opened there
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
