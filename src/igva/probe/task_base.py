"""The contract every task keeps: decks and a random stream in, a picture with its question out."""

from __future__ import annotations

import functools
import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from igva.probe.edition import Split
from igva.probe.scenes import Scene

YES_NO = ("yes", "no")


@dataclass(frozen=True)
class Question:
    """One question; ``answer`` (lower case) is one of ``choices``, the closed list it is judged by.

    It is what is asked about a scene while the scene is drawn: a turn of a conversation, without the picture's file
    and an id. What is read back from the files is ``igva.data.questions.Question``. Descriptions of training pictures,
    in words of one's own, have no ``choices``.
    """

    task: str
    question: str
    answer: str
    choices: tuple[str, ...]


Drawn = tuple[Scene, Question]


@dataclass(frozen=True)
class Task:
    """One thing that pictures are drawn for and asked about.

    Attributes:
        name: how files, tables and ``--tasks`` call it.
        category: one of the paper's six (``igva.probe.tasks.categories()``).
        draw: from a random stream, a split and a dealer to a picture and its question. Whatever decides the answer is
            dealt by the dealer, so that every answer comes equally often; all else is drawn from the stream.
        more: what else of this task a scene allows to ask (training); [] where it does not carry the task. It draws
            what it needs from the scene's own stream. None: pictures drawn for other tasks are never asked of it.
        describe: what is told of a picture drawn for the task (training), given its first question. None: what
            ``igva.probe.describe`` tells of any scene whose things can be spoken of freely.
        reword: a question as it is or, now and then, put as people do (training). None: as it is.
        subject: tasks of one subject ask the same in different settings, and a picture is asked it once; "": its own.
        repeats: which further turns would repeat a first question of the task: those with the same answer, those about
            the same things, or none.
    """

    name: str
    category: str
    draw: Callable[[random.Random, Split, Dealer], Drawn]
    more: Callable[[Scene], list[Question]] | None = None
    describe: Callable[[Scene, Question], list[Question]] | None = None
    reword: Callable[[Scene, Question], Question] | None = None
    subject: str = ""
    repeats: Literal["answer", "things", "none"] = "answer"


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
        block, position = divmod(self.number if number is None else number, len(cards))
        return _deck(self.seed, self.split, name, block, cards)[position]


def phrase(rng: random.Random, wordings: Sequence[str], **words: str) -> str:
    """One of the ways to put a question, filled in."""
    return rng.choice(wordings).format(**words)


def article(words: str) -> str:
    """ "orange bar" -> "an orange bar"."""
    return ("an " if words[0] in "aeiou" else "a ") + words


def kind_words(kind: str) -> dict[str, str]:
    """A kind of things as wordings name it: {x} the kind ("clothing"), {one} one of it ("piece of clothing"), {a} that
    with its article."""
    one = f"piece of {kind}" if kind in ("clothing", "furniture") else kind
    return {"x": kind, "one": one, "a": "food" if kind == "food" else article(one)}
