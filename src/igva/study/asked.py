"""Questions to be answered by a model: from a file of questions, or out of training data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from igva.data.records import Record
from igva.data.sources import read_records
from igva.errors import UserError
from igva.eval.questions import Question, read_questions
from igva.study.items import pick


def read_asked(path: str | Path, category_field: str = "category", limit: int | None = None) -> list[Question]:
    """The questions of a file, as the model is to see them.

    A file of questions is read as ``igva eval`` reads it. Of other data (LLaVA JSON, Hugging Face) the first question
    of every conversation about a single picture is one: later ones need the answers before them.

    Args:
        category_field: the field of an entry that names its category.
        limit: at most that many, as alike in number per task as they go.

    Raises:
        UserError: the file is missing or malformed, has no such field or no question about a single picture, or two
            questions have the same id.
    """
    path = Path(path)
    if limit is not None and limit < 1:
        raise UserError(f"--limit {limit}: use at least 1")
    if path.is_file() and _is_question_file(path):
        questions = read_questions(path, category_field)
    else:
        records = read_records(path)
        questions = [_first_question(record, category_field) for record in records if len(record.images) == 1]
    if not questions:
        raise UserError(f"{path} has no question about a single picture: there is nothing to study")
    if len({question.id for question in questions}) < len(questions):
        raise UserError(f"{path}: two questions have the same id: give each its own")
    return pick_questions(questions, limit)


def pick_questions(questions: Sequence[Question], limit: int | None) -> list[Question]:
    """At most ``limit`` questions, as alike in number per task as they go."""
    chosen: list[Any] = pick(questions, limit)  # type: ignore[arg-type]  # it reads the task alone
    return chosen


def _is_question_file(path: Path) -> bool:
    """Whether the first entry has a ``question`` and no conversation; what is unreadable is left to the reader."""
    if path.suffix not in (".json", ".jsonl"):
        return False
    try:
        text = path.read_text(encoding="utf-8-sig")
        entries = json.loads(text) if text.lstrip().startswith("[") else [json.loads(text.lstrip().split("\n")[0])]
    except ValueError:
        return False
    first = entries[0] if entries else None
    return isinstance(first, dict) and "question" in first


def _first_question(record: Record, category_field: str) -> Question:
    question, answer = (
        next(
            " ".join(part["text"] for part in message["content"] if part["type"] == "text")
            for message in record.chat
            if message["role"] == role
        ).strip()
        for role in ("user", "assistant")
    )
    task = str(record.extra.get("task", record.source))
    if category_field not in record.extra and category_field != "category":
        raise UserError(f"sample {record.id} has no field {category_field!r}: name the field that holds the category")
    choices = (record.extra.get("choices") or [()])[0]
    image: Any = record.images[0]  # a file, or a cell of a table
    return Question(
        id=record.id,
        image=image,
        question=question,
        answer=answer,
        choices=tuple(map(str, choices)),
        task=task,
        category=str(record.extra.get(category_field, task)),
        answers=(answer,),
    )
