"""Where igva keeps what it downloads and converts."""

import os
from pathlib import Path


def home() -> Path:
    """The user's cache: ``$IGVA_HOME``, or ``~/.cache/igva``."""
    return Path(os.environ.get("IGVA_HOME") or Path.home() / ".cache" / "igva").expanduser()


def is_missing_folder(name: str) -> bool:
    """Whether a name is more likely a folder that is not there than a hub id: what it lies in is there."""
    path = Path(name).expanduser()
    return not path.exists() and (path.is_absolute() or (len(path.parts) > 1 and path.parent.is_dir()))
