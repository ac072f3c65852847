"""What a study asks: questions with their pictures, from a file of questions or from LLaVA data."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from igva.data.images import ImageSource
from igva.data.imagined import without_imagined
from igva.data.records import Record
from igva.data.sources import read_records
from igva.errors import UserError
from igva.model.processing_igva import instruction_text


@dataclass(frozen=True)
class Item:
    """One question about one picture.

    Attributes:
        question: the bare question, without image token and answer-format request.
        choices: the closed list of answers; empty where any answer of the training data may be given.
    """

    id: str
    image: ImageSource
    question: str
    answer: str
    choices: tuple[str, ...]
    task: str
    category: str


def read_items(path: str | Path, category_field: str = "category") -> list[Item]:
    """Read a file of questions (as ``igva probe build`` and ``igva eval`` know it), or any data that can be trained on.

    Of a conversation every pair of question and answer is an item. Samples without a picture, or with several, are
    left out: a layer's readout looks at one picture. So are those that imagine a class: the picture does not show it.

    Args:
        category_field: the field of an entry that names its category.

    Raises:
        UserError: the file is missing or malformed, nothing in it has one picture, or no entry has the field.
    """
    path = Path(path)
    entries = _question_entries(path)
    if entries is not None:
        items = [_from_entry(entry, number, path, category_field) for number, entry in enumerate(entries)]
    else:
        records = without_imagined(read_records(path))
        items = [item for record in records for item in _from_record(record, category_field)]
    if not items:
        raise UserError(f"{path} has no question about a single picture: a study needs pictures")
    return items


def _question_entries(path: Path) -> list[dict[str, Any]] | None:
    """The entries of a file of questions; None where it is something else."""
    if path.suffix != ".json" or not path.is_file():
        return None
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}: not valid JSON ({error.msg})") from error
    first = entries[0] if isinstance(entries, list) and entries else None
    return entries if isinstance(first, dict) and "question" in first else None


def _from_entry(entry: dict[str, Any], number: int, path: Path, category_field: str) -> Item:
    try:
        task = str(entry.get("task", "all"))
        return Item(
            id=str(entry.get("id", number)),
            image=path.parent / entry["image"],
            question=instruction_text(entry["question"]),
            answer=str(entry["answer"]),
            choices=tuple(map(str, entry.get("choices") or ())),
            task=task,
            category=_category(entry, category_field, f"{path}, question {number}", task),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}, question {number}: image, question and answer are needed ({error})") from error


def _from_record(record: Record, category_field: str) -> list[Item]:
    if len(record.images) != 1:
        return []
    task = str(record.extra.get("task", record.source))
    category = _category(record.extra, category_field, f"sample {record.id}", task)
    questions, answers = (_texts(record, role) for role in ("user", "assistant"))
    closed = record.extra.get("choices") or [()] * len(questions)
    if len(closed) != len(questions):
        raise UserError(f"sample {record.id}: {len(closed)} lists of choices for {len(questions)} questions")
    return [
        Item(
            f"{record.id}/{turn}",
            record.images[0],
            instruction_text(question),
            answer.strip(),
            tuple(map(str, choices)),
            task,
            category,
        )
        for turn, (question, answer, choices) in enumerate(zip(questions, answers, closed, strict=True))
    ]


def _texts(record: Record, role: str) -> list[str]:
    turns = [message["content"] for message in record.chat if message["role"] == role]
    return [" ".join(item["text"] for item in content if item["type"] == "text") for content in turns]


def _category(entry: dict[str, Any], category_field: str, place: str, task: str) -> str:
    if category_field in entry:
        return str(entry[category_field])
    if category_field == "category":  # nobody asked for it: a file without categories has its tasks
        return task
    raise UserError(f"{place} has no field {category_field!r}: name the field that holds the category")


def of_tested_tasks(train: Sequence[Item], test: Sequence[Item]) -> list[Item]:
    """The items of ``train`` whose task ``test`` has too; all of them where none has.

    A readout chooses an answer from a list: what is only told in training, such as the descriptions of the probe
    suite's pictures, would be answers that no test question has.
    """
    tasks = {item.task for item in test}
    return [item for item in train if item.task in tasks] or list(train)


def pick(items: Sequence[Item], limit: int | None, seed: int = 0) -> list[Item]:
    """At most ``limit`` items, as alike in number per task as they go, in their own order."""
    if limit is None or limit >= len(items):
        return list(items)
    by_task: dict[str, list[int]] = defaultdict(list)
    for place, item in enumerate(items):
        by_task[item.task].append(place)
    rng = random.Random(seed)
    for places in by_task.values():
        rng.shuffle(places)
    chosen: list[int] = []
    while len(chosen) < limit:
        for places in by_task.values():
            if places and len(chosen) < limit:
                chosen.append(places.pop())
    return [items[place] for place in sorted(chosen)]
