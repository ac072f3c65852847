"""The photos suite: photographs and drawings that training never saw; drawn when first asked for, then kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from igva import probe
from igva.eval import photo_parts
from igva.eval.drawn import QUESTIONS, drawn_questions

SPLITS = tuple(photo_parts.PARTS)


def photo_questions(splits: Sequence[str] = SPLITS) -> list[Path]:
    """The file of questions of each split, under ``igva.paths.home()``.

    Raises:
        UserError: the cache cannot be written.
    """
    sources = [Path(probe.__file__).parent, photo_parts.PHOTOS, Path(photo_parts.__file__)]
    return [drawn_questions("photos", split, sources, partial(draw, split)) for split in splits]


def draw(split: str, folder: Path) -> None:
    """Write a split's ``questions.json`` and pictures into an empty folder; the same bytes each time."""
    (folder / photo_parts.IMAGES).mkdir(parents=True)
    entries = photo_parts.PARTS[split](folder)
    (folder / QUESTIONS).write_text(json.dumps(entries, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
