"""Where igva keeps what it downloads and converts."""

import os
from pathlib import Path


def home() -> Path:
    """The user's cache: ``$IGVA_HOME``, or ``~/.cache/igva``."""
    return Path(os.environ.get("IGVA_HOME") or Path.home() / ".cache" / "igva").expanduser()
