"""Suites that are drawn: made when first asked for, then kept in igva's cache."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

from igva.files import new_folder, write_errors
from igva.paths import home

QUESTIONS = "questions.json"


def drawn_questions(suite: str, name: str, sources: Iterable[Path], draw: Callable[[Path], object]) -> Path:
    """The file of questions in a folder of ``home()/suite``, filled by ``draw(folder)`` the first time.

    Args:
        sources: files, and folders with all that they hold, that the pictures are made of and by: other content,
            another folder.

    Raises:
        UserError: the cache cannot be written.
    """
    folder = home() / suite / f"{name}-{_key(sources)}"
    if not _is_drawn(folder):
        with write_errors(folder), new_folder(folder, _is_drawn) as fresh:  # another process may draw it too
            draw(fresh)
    return folder / QUESTIONS


def _is_drawn(folder: Path) -> bool:
    return (folder / QUESTIONS).is_file()


def _key(sources: Iterable[Path]) -> str:
    """A short hash of names and content."""
    digest = hashlib.sha256()
    for source in sources:
        for file in sorted(source.rglob("*")) if source.is_dir() else [source]:
            if file.is_file() and file.suffix != ".pyc":
                digest.update(str(file.relative_to(source.parent)).encode() + file.read_bytes())
    return digest.hexdigest()[:10]
