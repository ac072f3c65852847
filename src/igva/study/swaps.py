"""What moves the weights, the question or the picture: each is exchanged while the other stays."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from typing import TypeVar

from igva.data.images import ImageSource
from igva.eval.questions import Question

Pair = tuple[ImageSource, str]
T = TypeVar("T")

OTHER_TASK = "a question of another task, same picture"
SAME_TASK = "another question of the same task, same picture"
OTHER_PICTURE = "another picture, same question"
KINDS = (OTHER_TASK, SAME_TASK, OTHER_PICTURE)


def swaps(questions: Sequence[Question], seed: int = 0) -> dict[str, list[Pair | None]]:
    """For each kind and question the picture and question it is exchanged for; None where there is none.

    A question of another task is taken from the same picture's where the file has one, else from all of the file.
    """
    rng = random.Random(seed)
    here: dict[ImageSource, list[Question]] = defaultdict(list)
    texts: dict[str, set[str]] = defaultdict(set)
    for question in questions:
        here[question.image].append(question)
        texts[question.task].add(question.question)
    images = list(here)
    everything = {task: sorted(found) for task, found in sorted(texts.items())}
    found: dict[str, list[Pair | None]] = {kind: [] for kind in KINDS}
    for question in questions:
        beside = [q.question for q in here[question.image] if q.task != question.task]
        other_tasks = [task for task in everything if task != question.task]
        elsewhere = rng.choice(everything[rng.choice(other_tasks)]) if other_tasks else None
        found[OTHER_TASK].append(_pair(question.image, rng.choice(beside) if beside else elsewhere))
        found[SAME_TASK].append(_pair(question.image, _another(question.question, everything[question.task], rng)))
        found[OTHER_PICTURE].append(_other_picture(question, images, rng))
    return found


def _pair(image: ImageSource, text: str | None) -> Pair | None:
    return None if text is None else (image, text)


def _other_picture(question: Question, images: Sequence[ImageSource], rng: random.Random) -> Pair | None:
    image = _another(question.image, images, rng)
    return None if image is None else (image, question.question)


def _another(own: T, among: Sequence[T], rng: random.Random) -> T | None:
    """A random one of ``among``, all different, that is not ``own``, which is one of them; None where it is alone."""
    if len(among) < 2:
        return None
    drawn = among[rng.randrange(len(among) - 1)]
    return among[-1] if drawn == own else drawn  # the own one's place stands for the last
