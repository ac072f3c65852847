"""Questions that a model answers and is scored on: a file of questions, or the first turns of LLaVA data."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from igva.data.records import TURN_KEYS, Record, image_names, record_from
from igva.errors import UserError
from igva.model.processing_igva import ANSWER_FORMATS, instruction_text
from igva.study.items import pick

_NEEDED = ("id", "image", "question", "answer")


@dataclass(frozen=True)
class Question:
    """One question about one picture.

    Attributes:
        question: what the model is shown, word for word; the instruction of the fusion is made of it by the processor.
        answer: the right answer, or the reference given most often.
        choices: the closed list of answers; empty where the question is open.
        answers: all references; empty stands for ``(answer,)``.
        metric: a name of ``igva.eval.metrics.METRICS``.
        group: links the variants of one item (the same choices in another order, yes and no about one picture).
    """

    id: str
    image: Path
    question: str
    answer: str
    choices: tuple[str, ...] = ()
    task: str = "all"
    category: str = "all"
    answers: tuple[str, ...] = ()
    metric: str = "exact"
    group: str = ""

    @property
    def references(self) -> tuple[str, ...]:
        """All right answers; never empty."""
        return self.answers or (self.answer,)


def read_questions(path: Path, category_field: str = "category") -> list[Question]:
    """Read a ``questions.json`` (a list, or one object per line) or LLaVA JSON.

    Of LLaVA's conversations about a single picture the first question is taken; later ones need the answers before.

    Args:
        category_field: the field of an entry that names its category.

    Raises:
        UserError: missing, malformed or empty, or two entries have the same id; the message names the entry.
    """
    if not path.is_file():
        raise UserError(
            f"{path} does not exist: check the path, or make questions with `igva probe build --split test`"
        )
    questions: dict[str, Question] = {}
    for number, entry in enumerate(_entries(path)):
        place = f"{path}, entry {number}"
        if not isinstance(entry, dict):
            raise UserError(f"{place}: an object is expected, not a {type(entry).__name__}")
        talks = any(entry.get(key) is not None for key in TURN_KEYS)
        question = (_of_conversation if talks else _of_entry)(entry, number, path, category_field)
        if question is None:
            continue
        if question.id in questions:
            raise UserError(f"{place}: the id {question.id!r} is taken by an earlier entry: give each its own")
        questions[question.id] = question
    if not questions:
        raise UserError(f"{path} holds no question about a single picture: check that it is the right file")
    return list(questions.values())


def pick_questions(questions: Sequence[Question], limit: int | None) -> list[Question]:
    """At most ``limit`` questions, as alike in number per task as they go, in their own order.

    The variants of an item stay together: half a group is easier to get right as a whole. At least one item is taken.
    """
    if limit is None or limit >= len(questions):
        return list(questions)
    items: dict[tuple[str, str], list[Question]] = defaultdict(list)
    for question in questions:
        items[item_of(question)].append(question)
    firsts = [members[0] for members in items.values()]

    def taken(count: int) -> list[Question]:
        few: list[Any] = pick(firsts, count)  # type: ignore[arg-type]  # it reads the task alone
        chosen = set(map(item_of, few))
        return [question for question in questions if item_of(question) in chosen]

    fitting = bisect_right(range(1, limit + 1), limit, key=lambda count: len(taken(count)))
    return taken(max(fitting, 1))


def item_of(question: Question) -> tuple[str, str]:
    """What a question is a variant of: its group within its task, for MME's pairs the picture, else itself."""
    if question.group:
        return question.task, f"group {question.group}"
    return question.task, f"image {question.image}" if question.metric == "mme" else f"id {question.id}"


def with_format(questions: Sequence[Question], request: str) -> list[Question]:
    """The questions with another request for a form of answer at their end, or with none (``""``).

    Raises:
        UserError: the request is none that the processor knows, so the fusion would take it for part of the question.
    """
    if request and request not in ANSWER_FORMATS:
        raise UserError(f"unknown answer suffix {request!r}: use one of " + " | ".join(ANSWER_FORMATS))
    return [replace(q, question="\n".join(filter(None, (instruction_text(q.question), request)))) for q in questions]


def _entries(path: Path) -> Iterator[Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8'}") from error
    lines = path.suffix == ".jsonl" or text.lstrip().startswith("{")
    pieces = list(enumerate(text.split("\n"), 1)) if lines else [(0, text)]
    for number, piece in pieces:
        if lines and not piece.strip():
            continue
        try:
            value = json.loads(piece)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {number or error.lineno}: not valid JSON ({error.msg})") from error
        except RecursionError as error:
            raise UserError(f"{path}: not valid JSON (nested too deeply)") from error
        if lines:
            yield value
        elif isinstance(value, list):
            yield from value
        else:
            raise UserError(f"{path}: a list of questions is expected, not a {type(value).__name__}")


def _of_entry(entry: dict[str, Any], number: int, path: Path, category_field: str) -> Question:
    place = f"{path}, entry {number}" + (f" (id {entry['id']})" if "id" in entry else "")
    answers = _strings(entry, "answers", place)
    if entry.get("answer") is None and answers:
        entry = {**entry, "answer": Counter(answers).most_common(1)[0][0]}
    for key in _NEEDED:
        if entry.get(key) is None:
            raise UserError(f"{place} lacks {key!r}; {', '.join(_NEEDED)} are needed")
        if not isinstance(entry[key], str) and key in ("image", "question"):
            raise UserError(f"{place}: its {key} is not text")
    if isinstance(entry["answer"], (list, dict)):
        raise UserError(f"{place}: its answer is not text (several references go into 'answers')")
    return Question(
        id=str(entry["id"]),
        image=path.parent / entry["image"],
        question=entry["question"],
        answer=str(entry["answer"]),
        choices=_strings(entry, "choices", place),
        answers=answers or (str(entry["answer"]),),
        **_labels(entry, place, category_field),
    )


def _of_conversation(entry: dict[str, Any], number: int, path: Path, category_field: str) -> Question | None:
    place = f"{path}, entry {number}"
    images = [path.parent / name for name in image_names(entry, place)]
    if len(images) != 1:
        return None
    record = record_from(entry, images, place=place, name=str(number), source=path.stem)
    answer = _first_text(record, "assistant")
    choices = record.extra.get("choices") or []
    if choices and isinstance(choices[0], list):  # one list per turn
        choices = choices[0]
    return Question(
        id=record.id,
        image=images[0],
        question=_first_text(record, "user"),
        answer=answer,
        choices=_strings({"choices": choices}, "choices", place),
        answers=(answer,),
        **_labels({"task": record.source, **record.extra}, place, category_field),
    )


def _first_text(record: Record, role: str) -> str:
    content: Sequence[dict[str, Any]] = next(m["content"] for m in record.chat if m["role"] == role)
    return " ".join(part["text"] for part in content if part["type"] == "text").strip()


def _labels(entry: dict[str, Any], place: str, category_field: str) -> dict[str, str]:
    """Task, category, metric and group of an entry."""
    task = str(entry.get("task") or "all")
    category = entry.get(category_field)
    if category is None and category_field != "category":
        raise UserError(f"{place} has no field {category_field!r}: name the field that holds the category")
    return {
        "task": task,
        "category": task if category is None else str(category),
        "metric": str(entry.get("metric") or "exact"),
        "group": str(entry.get("group") or ""),
    }


def _strings(entry: dict[str, Any], key: str, place: str) -> tuple[str, ...]:
    values = entry.get(key) or []
    if not isinstance(values, list) or not all(isinstance(value, (str, int, float)) for value in values):
        raise UserError(f"{place}: its {key} are not a list of texts")
    return tuple(map(str, values))
