"""Random streams and decks: what a question must be about, so that every answer comes equally often."""

import functools
import hashlib
import random
from typing import Any

from igva.probe.questions import Question
from igva.probe.scenes import Scene

Drawn = tuple[Scene, Question]


def stream(*key: object) -> random.Random:
    """A random stream of its own for a key, the same in every process and on every machine."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return random.Random(int.from_bytes(digest[:16], "big"))


@functools.lru_cache(maxsize=256)
def _deck(seed: int, split: str, name: str, block: int, cards: tuple[Any, ...]) -> tuple[Any, ...]:
    """``cards`` shuffled anew for each block: going through block after block deals each equally often."""
    return tuple(stream(seed, split, "deck", name, block).sample(cards, len(cards)))


class Dealer:
    """Deals what the ``number``-th question of a task must be about, from the task's decks."""

    def __init__(self, seed: int, split: str, number: int) -> None:
        self.seed, self.split, self.number = seed, split, number

    def deal(self, name: str, cards: tuple[Any, ...], number: int | None = None) -> Any:
        """The card for this question (or for another number)."""
        block, place = divmod(self.number if number is None else number, len(cards))
        return _deck(self.seed, self.split, name, block, cards)[place]
