"""What igva wrote into a folder of its own, so that it notices when a disk or somebody changed it.

safetensors and transformers look at names and shapes alone: flipped bits of a weight are answered with, not refused.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

SEAL = "sealed.json"


def seal(folder: Path) -> None:
    """Write down the size and the hash of every file of a finished folder."""
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": _hash(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    (folder / SEAL).write_text(json.dumps(files, indent=1) + "\n", encoding="utf-8")


def sizes_fit(folder: Path) -> bool:
    """Whether every file is there, as long as it was: quick, for each time the folder is used."""
    files = _sealed(folder)
    return files is not None and all(
        (folder / name).is_file() and (folder / name).stat().st_size == entry["bytes"] for name, entry in files.items()
    )


def contents_fit(folder: Path) -> bool:
    """Whether every file is what it was, by its hash: a second or two for a gigabyte."""
    files = _sealed(folder)
    return (
        files is not None
        and sizes_fit(folder)
        and all(_hash(folder / name) == entry["sha256"] for name, entry in files.items())
    )


def _sealed(folder: Path) -> dict[str, dict[str, str | int]] | None:
    try:
        files: dict[str, dict[str, str | int]] = json.loads((folder / SEAL).read_text(encoding="utf-8"))
        return files if all({"bytes", "sha256"} <= entry.keys() for entry in files.values()) else None
    except (OSError, ValueError, AttributeError):
        return None


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
