"""Checkpoints of a run: complete or absent, whenever it is killed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

STAGING = ".saving"
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
        flush(folder)
        target = output / folder.name
        if target.exists():  # a resumed run comes past the same step again
            _remove(target)
        folder.rename(target)
    _sync(output)
    shutil.rmtree(staged, ignore_errors=True)
    for old in snapshots(output)[:-keep]:
        _remove(old)


def snapshots(output: Path) -> list[Path]:
    """The complete checkpoints of an output folder, oldest first."""
    found = [folder for folder in output.glob(f"{_PREFIX}*") if folder.name.removeprefix(_PREFIX).isdigit()]
    return sorted(found, key=lambda folder: int(folder.name.removeprefix(_PREFIX)))


def flush(folder: Path) -> None:
    """Make sure every file of a folder has reached the disk."""
    for path in [*folder.rglob("*"), folder]:
        _sync(path)


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():  # Windows cannot open a folder
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(folder: Path) -> None:
    """Out of sight by one rename first: a kill must not leave half a checkpoint under a checkpoint's name."""
    hidden = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(hidden, ignore_errors=True)
    folder.rename(hidden)
    shutil.rmtree(hidden)
