"""The probe suite as evaluations know it: drawn when first asked for, then kept in igva's cache."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from igva import probe
from igva.checkpoints.store import write_errors
from igva.paths import home

COUNT = 6400  # pictures: more than 1,000 per category


def probe_questions(split: str, count: int = COUNT) -> Path:
    """The file of questions of a split, under ``igva.paths.home()``.

    Raises:
        UserError: there is no such split, or the cache cannot be written.
    """
    folder = home() / "probe" / f"{split}-{count}-{_drawing_key()}"
    file = folder / "questions.json"
    if not file.is_file():
        with write_errors(folder):
            probe.build(split, folder, count, seed=0, workers=min(8, os.cpu_count() or 1) if count > 100 else 1)
    return file


def _drawing_key() -> str:
    """A short hash of everything that draws: another version of the suite has another folder."""
    root = Path(probe.__file__).parent
    digest = hashlib.sha256()
    for file in sorted(root.rglob("*")):
        if file.is_file() and file.suffix != ".pyc":
            digest.update(str(file.relative_to(root)).encode() + file.read_bytes())
    return digest.hexdigest()[:10]
