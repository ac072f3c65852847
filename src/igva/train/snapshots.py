"""Checkpoints of a run: complete or absent, whenever it is killed."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

from transformers.trainer import TRAINER_STATE_NAME

from igva.checkpoints.trained import TRAINED_FILE, read_trained
from igva.errors import UserError, first_line
from igva.files import flush_directory, flush_tree
from igva.seal import cut_or_missing, first_changed, listing

CONTENTS = "checkpoint.json"  # when a checkpoint was written, and the size and hash of each of its files
STAGING = ".saving"
HASHED_UP_TO = 2**31  # bytes of a file: hashing the optimizer of a large model would take as long as writing it
_PREFIX = "checkpoint-"


def staging_folder(output: Path, main: bool) -> Path:
    """An empty folder to write a checkpoint in; the main process clears what a killed run left."""
    folder = output / STAGING
    if main:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    return folder


def publish(output: Path, keep: int) -> None:
    """Flush what stands in the staging folder, give it its final name, and drop the oldest beyond ``keep``."""
    staged = output / STAGING
    for folder in staged.glob(f"{_PREFIX}*"):
        contents = {"written": time.time(), "files": listing(folder, hashed_up_to=HASHED_UP_TO)}
        (folder / CONTENTS).write_text(json.dumps(contents, indent=1) + "\n", encoding="utf-8")
        flush_tree(folder)
        target = output / folder.name
        if target.exists():  # a resumed run comes past the same step again
            _remove(target)
        folder.rename(target)
    flush_directory(output)
    shutil.rmtree(staged, ignore_errors=True)
    for old in snapshots(output)[:-keep]:
        _remove(old)


def snapshots(output: Path) -> list[Path]:
    """The complete checkpoints of an output folder, in the order in which they were written."""
    folders = [folder for folder in output.glob(f"{_PREFIX}*") if folder.name.removeprefix(_PREFIX).isdigit()]
    return sorted(folders, key=lambda folder: (_written(folder), int(folder.name.removeprefix(_PREFIX))))


def _written(folder: Path) -> float:
    """Seconds since 1970: as it says itself, since copies have other times; else (an older igva's) of its files."""
    try:
        return float(json.loads((folder / CONTENTS).read_text(encoding="utf-8"))["written"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return max((path.stat().st_mtime for path in folder.iterdir() if path.is_file()), default=0.0)


def damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint, in a few words; None where nothing is, as far as it can be told."""
    if not (folder / TRAINED_FILE).is_file() or not (folder / TRAINER_STATE_NAME).is_file():
        return f"{TRAINED_FILE} or {TRAINER_STATE_NAME} is missing"
    if not (folder / CONTENTS).is_file():  # an older igva's: what can be read is taken
        return _unreadable(folder)
    try:
        files = json.loads((folder / CONTENTS).read_text(encoding="utf-8"))["files"]
        if cut_or_missing(folder, files):
            return "a file is not as long as it was"
        changed = first_changed(folder, files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "a file is missing or cannot be read"
    return None if changed is None else f"{changed.name} has changed"


def _unreadable(folder: Path) -> str | None:
    try:
        json.loads((folder / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
        read_trained(folder / TRAINED_FILE)
    except (OSError, ValueError, UserError) as error:
        return first_line(error)
    return None


def _remove(folder: Path) -> None:
    """Out of sight by one rename first: a kill must not leave half a checkpoint under a checkpoint's name."""
    hidden = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(hidden, ignore_errors=True)
    folder.rename(hidden)
    shutil.rmtree(hidden)
