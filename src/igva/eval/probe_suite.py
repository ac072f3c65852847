"""The probe suite as evaluations know it: drawn when first asked for, then kept in igva's cache."""

from __future__ import annotations

import os
from pathlib import Path

from igva import probe
from igva.eval.drawn import drawn_questions

COUNT = 6400  # pictures: more than 1,000 per category


def probe_questions(split: str, count: int = COUNT) -> Path:
    """The file of questions of a split, under ``igva.paths.home()``.

    Raises:
        UserError: there is no such split, or the cache cannot be written.
    """
    workers = min(8, os.cpu_count() or 1) if count > 100 else 1
    return drawn_questions(
        "probe",
        f"{split}-{count}",
        [Path(probe.__file__).parent],
        lambda folder: probe.build(split, folder, count, seed=0, workers=workers),
    )
