"""How much of a prompt that joins is read between two tokens of those who are answered already."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

CHUNK_TOKENS = 512  # at most; so many where nobody else waits
LEAST_TOKENS = 16


class Pace:
    """As many tokens as take about as long as a token of the others, which then go on at half their speed.

    Attributes:
        tokens: of the next piece.
    """

    def __init__(self) -> None:
        self.tokens = LEAST_TOKENS * 4
        self._step = 0.0  # seconds of the last token

    @contextmanager
    def step(self) -> Iterator[None]:
        """Around a token of all who are answered."""
        start = time.perf_counter()
        yield
        self._step = time.perf_counter() - start

    @contextmanager
    def chunk(self) -> Iterator[None]:
        """Around a piece of a prompt: the next one is half as long if this took longer than a token, else twice."""
        start = time.perf_counter()
        yield
        if self._step:
            slow = time.perf_counter() - start > self._step
            self.tokens = max(LEAST_TOKENS, self.tokens // 2) if slow else min(CHUNK_TOKENS, self.tokens * 2)
