"""The probe suite as evaluations know it: drawn when first asked for, then kept in igva's cache."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from igva import probe
from igva.checkpoints.store import new_folder, write_errors
from igva.paths import home

QUESTIONS = "questions.json"
COUNT = 6400  # pictures: more than 1,000 per category


def probe_questions(split: str, count: int = COUNT) -> Path:
    """The file of questions of a split, under ``igva.paths.home()``.

    Raises:
        UserError: there is no such split, or the cache cannot be written.
    """
    folder = home() / "probe" / f"{split}-{count}-{_drawing_key()}"
    if not _is_drawn(folder):
        workers = min(8, os.cpu_count() or 1) if count > 100 else 1
        with write_errors(folder), new_folder(folder, _is_drawn) as fresh:  # another process may draw it too
            probe.build(split, fresh, count, seed=0, workers=workers)
    return folder / QUESTIONS


def _is_drawn(folder: Path) -> bool:
    return (folder / QUESTIONS).is_file()


def _drawing_key() -> str:
    """A short hash of everything that draws: another version of the suite has another folder."""
    root = Path(probe.__file__).parent
    digest = hashlib.sha256()
    for file in sorted(root.rglob("*")):
        if file.is_file() and file.suffix != ".pyc":
            digest.update(str(file.relative_to(root)).encode() + file.read_bytes())
    return digest.hexdigest()[:10]
