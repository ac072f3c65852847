"""What igva wrote into a folder of its own, so that it notices when a disk or somebody changed it.

safetensors and transformers look at names and shapes alone: flipped bits of a weight are answered with, not refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from igva.files import sha256_of

SEAL = "sealed.json"

Listing = Mapping[str, Mapping[str, Any]]  # file below the folder → its size in bytes and, mostly, its sha256


def listing(folder: Path, hashed_up_to: float = math.inf) -> Listing:
    """Size and hash of every file of a finished folder; of files of more bytes than ``hashed_up_to`` the size alone."""
    files = {path: path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()}
    return {
        path.relative_to(folder).as_posix(): {
            "size": size,
            **({"sha256": sha256_of(path)} if size <= hashed_up_to else {}),
        }
        for path, size in files.items()
    }


def cut_or_missing(folder: Path, files: Listing) -> bool:
    """Whether a file is gone or not as long as it was: cheap, for each time the folder is used.

    Raises:
        OSError, KeyError, TypeError, AttributeError: a file is gone, or the listing is none; both say the same.
    """
    return any((folder / name).stat().st_size != entry["size"] for name, entry in files.items())


def first_changed(folder: Path, files: Listing) -> Path | None:
    """The first file whose hash differs: a second or two for a gigabyte."""
    hashes = {folder / name: entry["sha256"] for name, entry in files.items() if "sha256" in entry}
    return next((path for path, known in hashes.items() if sha256_of(path) != known), None)


def seal(folder: Path) -> None:
    """Keep the listing of a folder in it."""
    (folder / SEAL).write_text(json.dumps(listing(folder), indent=1) + "\n", encoding="utf-8")


def sizes_fit(folder: Path) -> bool:
    """Whether every file of a sealed folder is there, as long as it was."""
    try:
        return not cut_or_missing(folder, _sealed(folder))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def contents_fit(folder: Path) -> bool:
    """Whether every file of a sealed folder is what it was."""
    return sizes_fit(folder) and first_changed(folder, _sealed(folder)) is None


def _sealed(folder: Path) -> Listing:
    files: Listing = json.loads((folder / SEAL).read_text(encoding="utf-8"))
    return files
