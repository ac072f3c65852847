"""What a result was computed with: kept beside every result."""

import platform
from importlib.metadata import version


def versions(*packages: str) -> dict[str, str]:
    """Of Python, igva, torch, transformers, and of further installed packages by their names on the index."""
    names = ("igva", "torch", "transformers", *packages)
    return {"python": platform.python_version(), **{name: version(name) for name in names}}
