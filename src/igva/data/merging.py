"""Conversations about one picture become one sample: the picture's tokens are read once for all their turns.

LLaVA-1.5 does this to the question-answer pairs of VQAv2, GQA, OCR-VQA and others (appendix of arXiv 2310.03744). The
instruction of the sample is then, as of every conversation, the mean over its user turns.
"""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from igva.data.imagined import FIELD
from igva.data.records import Record


def merge_by_picture(records: Iterable[Record], most_turns: int, seed: int = 0) -> list[Record]:
    """Put conversations about the same picture together, in an order drawn by lot.

    Args:
        records: any; those without a picture, with several, with a system message, or whose picture does not stand
            in the first turn stay as they are. Those that imagine a class on it are merged with their like only.
        most_turns: of one sample; a conversation that has more stays alone.
        seed: of the order of the conversations within a sample.

    Returns:
        The samples, each where the first of its conversations stood. A merged one has the first's ``id``, the
        ``source`` of all its parts if it is the same, else ``"merged"``, and of ``extra`` what is imagined.
    """
    groups: dict[Any, list[Record]] = {}
    for number, record in enumerate(records):
        groups.setdefault(_shown(record) if _mergeable(record) else number, []).append(record)
    return [sample for group in groups.values() for sample in _merged(group, most_turns, seed)]


def _mergeable(record: Record) -> bool:
    pictures = [item["type"] == "image" for message in record.chat for item in message["content"]]
    return len(record.images) == 1 and pictures[0] and record.chat[0]["role"] == "user"


def _shown(record: Record) -> tuple[str, str]:
    """What its one picture shows: itself, and what is imagined on it."""
    return str(record.images[0]), json.dumps(record.extra.get(FIELD), sort_keys=True)


def _merged(group: Sequence[Record], most_turns: int, seed: int) -> Iterator[Record]:
    if len(group) == 1:
        yield group[0]
        return
    shuffled = random.Random(f"{seed} {group[0].id}").sample(group, len(group))
    part: list[Record] = []
    for record in shuffled:
        if part and _turns([*part, record]) > most_turns:
            yield _join(part)
            part = []
        part.append(record)
    yield _join(part)


def _turns(records: Iterable[Record]) -> int:
    return sum(message["role"] == "user" for record in records for message in record.chat)


def _join(part: Sequence[Record]) -> Record:
    if len(part) == 1:
        return part[0]
    chat = list(part[0].chat)
    for record in part[1:]:
        first, *rest = record.chat
        chat += [{**first, "content": [item for item in first["content"] if item["type"] != "image"]}, *rest]
    sources = {record.source for record in part}
    extra = {FIELD: part[0].extra[FIELD]} if FIELD in part[0].extra else {}  # the same for all
    return dataclasses.replace(part[0], chat=chat, source=sources.pop() if len(sources) == 1 else "merged", extra=extra)
