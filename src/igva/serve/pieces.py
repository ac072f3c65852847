"""Megabytes looked at in pieces, so that the thread of the model is not kept waiting for the interpreter."""

from __future__ import annotations

from collections.abc import Iterator

PIECE = 2**16  # bytes: a few of Python's operations on so many take no longer than a thread may keep the interpreter


def pieces(data: bytes) -> Iterator[bytes]:
    """The bytes, one piece after another; an operation on bytes keeps the interpreter until it is done."""
    return (data[start : start + PIECE] for start in range(0, len(data), PIECE))
