"""What a burst of requests took goes back to the system once there is nothing to do."""

from __future__ import annotations

import ctypes
import sys
from typing import Any


def _trim() -> Any:
    """glibc's ``malloc_trim``; None where the C library has no such function (musl, macOS, Windows)."""
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None


_TRIM = _trim()


def give_back() -> None:
    """Hand free memory back: glibc keeps what was freed between blocks that are still in use, for good."""
    if _TRIM is not None:
        _TRIM(0)
