"""What a burst of requests took goes back to the system once there is nothing to do."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

_ARENA_MAX = -8  # glibc's name of this setting of mallopt is M_ARENA_MAX


def _c_function(name: str) -> Any:
    """One of glibc's; None where the C library has no such function (musl, macOS, Windows)."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None


_TRIM, _SET = _c_function("malloc_trim"), _c_function("mallopt")


def share_one_arena() -> None:
    """Have all threads that begin from now on allocate from one place.

    By default glibc gives each thread a heap of its own, and what lies scattered over them after a burst cannot be
    handed back: the server stays a tenth larger (docs/security.md). What is large does not come from a heap anyway.
    """
    if _SET is not None:
        _SET(_ARENA_MAX, 1)


def give_back() -> None:
    """Hand free memory back: glibc keeps what was freed between blocks that are still in use, for good."""
    if _TRIM is not None:
        _TRIM(0)
