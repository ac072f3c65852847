"""How much of a prompt that joins is read between two tokens of those who are answered already."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

CHUNK_TOKENS = 512  # at most
LEAST_TOKENS = 16
ALONE_SECONDS = 0.2  # of a piece while nobody else waits: as long as whoever comes next may have to


class Pace:
    """Pieces that take about as long as a token of the others, which then go on at half their speed."""

    def __init__(self) -> None:
        self._step = 0.0  # seconds of the last token
        self._per_token = ALONE_SECONDS / 64  # seconds a token of the last piece; longer prompts are slower

    def piece(self, others: bool) -> int:
        """Tokens of the next piece.

        Args:
            others: whether anybody else is answered or arrives.
        """
        seconds = self._step if others and self._step else ALONE_SECONDS
        return max(LEAST_TOKENS, min(CHUNK_TOKENS, round(seconds / self._per_token)))

    @contextmanager
    def step(self) -> Iterator[None]:
        """Around a token of all who are answered."""
        start = time.perf_counter()
        yield
        self._step = time.perf_counter() - start

    @contextmanager
    def reading(self, tokens: int) -> Iterator[None]:
        """Around a piece of so many tokens."""
        start = time.perf_counter()
        yield
        self._per_token = max((time.perf_counter() - start) / tokens, 1e-9)
