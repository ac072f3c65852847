"""Questions about pictures, with their right answers: one record, and the reading of files that hold them.

``read_questions`` is for whoever asks a model: it keeps a question word for word, and takes the first one of a
conversation, since later ones need the answers before. ``read_turns`` is for whoever trains a small readout: every
question of a conversation, without the request for a form of answer.
"""

from __future__ import annotations

import json
import random
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from igva.data.bounded import check_file, whole_text
from igva.data.images import ImageSource
from igva.data.imagined import without_imagined
from igva.data.records import TURN_KEYS, Record, check_entry, image_names, record_from
from igva.data.sources import read_records
from igva.errors import UserError
from igva.model.processing_igva import ANSWER_FORMATS, instruction_text


@dataclass(frozen=True)
class Question:
    """One question about one picture.

    Attributes:
        question: what the model is shown, word for word, or (of ``read_turns``) the bare question.
        answer: the right answer, or the reference given most often.
        choices: the closed list of answers; empty where the question is open.
        answers: all references; empty stands for ``(answer,)``.
        metric: a name of ``igva.eval.metrics.METRICS``.
        group: links the variants of one item (the same choices in another order, yes and no about one picture).
    """

    id: str
    image: ImageSource
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


def read_questions(path: str | Path, category_field: str = "category") -> list[Question]:
    """Read a ``questions.json`` (a list, or one object per line) or LLaVA JSON, for a model to answer.

    Of LLaVA's conversations about a single picture the first question is taken.

    Args:
        category_field: the field of an entry that names its category.

    Raises:
        UserError: missing, malformed or empty, or two entries have the same id; the message names the entry.
    """
    path = Path(path)
    check_file(path, "check the path, or make questions with `igva probe build --split test`")
    questions: dict[str, Question] = {}
    for number, entry in enumerate(read_entries(path)):
        check_entry(entry, f"{path}, entry {number}")
        if any(entry.get(key) is not None for key in TURN_KEYS):
            asked = conversation_questions(entry, number, path, category_field)[:1]
        else:
            asked = [entry_question(entry, number, path, category_field)]
        for question in asked:
            if question.id in questions:
                raise UserError(
                    f"{path}, entry {number}: the id {question.id!r} is taken by an earlier entry: give each its own"
                )
            questions[question.id] = replace(question, answers=question.references)
    if not questions:
        raise UserError(f"{path} holds no question about a single picture: check that it is the right file")
    return list(questions.values())


def read_turns(path: str | Path, category_field: str = "category") -> list[Question]:
    """Read every question of a file of questions, or of any data that can be trained on, as bare questions.

    Of a conversation every pair of question and answer is one, with the id ``ID/NUMBER``. Samples without a picture,
    or with several, are left out, and so are those that imagine a class: the picture does not show it. An entry of a
    file of questions may do without an id: its number stands for it.

    Raises:
        UserError: the file is missing or malformed, nothing in it has one picture, or no entry has the field.
    """
    path = Path(path)
    if _holds_questions(path):
        entries = ({"id": number, **entry} for number, entry in enumerate(read_entries(path)))
        questions = [entry_question(entry, number, path, category_field) for number, entry in enumerate(entries)]
    else:
        records = [record for record in without_imagined(read_records(path)) if len(record.images) == 1]
        questions = [
            replace(question, id=f"{record.id}/{turn}")
            for record in records
            for turn, question in enumerate(_record_questions(record, f"sample {record.id}", category_field))
        ]
    if not questions:
        raise UserError(f"{path} has no question about a single picture: a study needs pictures")
    return [replace(question, question=instruction_text(question.question)) for question in questions]


def _holds_questions(path: Path) -> bool:
    """Whether it is a file whose first entry is a question (and no conversation)."""
    if path.suffix not in (".json", ".jsonl") or not path.is_file():
        return False
    first = next(read_entries(path), None)
    return isinstance(first, dict) and "question" in first


def read_entries(path: Path) -> Iterator[Any]:
    """What a JSON list, or a file of one JSON object per line, holds, one by one.

    Raises:
        UserError: it cannot be read, is not JSON, or is no list.
    """
    if path.exists():
        check_file(path)  # a pipe would be waited for
    try:
        text = whole_text(path).decode("utf-8-sig")
    except (UnicodeDecodeError, OSError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise UserError(f"{path} cannot be read: {reason}: check the path") from error
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


# --- from entries to questions --------------------------------------------------------------------------------------

_NEEDED = ("id", "image", "question", "answer")


def entry_question(entry: dict[str, Any], number: int, path: Path, category_field: str = "category") -> Question:
    """The question that the entry of that number in a file of questions is.

    Raises:
        UserError: something it needs is missing or of another type.
    """
    where = f"{path}, entry {number}" + (f" (id {entry['id']})" if "id" in entry else "")
    answers = _strings(entry, "answers", where)
    if entry.get("answer") is None and answers:
        entry = {**entry, "answer": Counter(answers).most_common(1)[0][0]}
    for key in _NEEDED:
        if entry.get(key) is None:
            raise UserError(f"{where} lacks {key!r}; {', '.join(_NEEDED)} are needed")
        if not isinstance(entry[key], str) and key in ("image", "question"):
            raise UserError(f"{where}: its {key} is not text")
    if isinstance(entry["answer"], (list, dict)):
        raise UserError(f"{where}: its answer is not text (several references go into 'answers')")
    return Question(
        id=str(entry["id"]),
        image=path.parent / entry["image"],
        question=entry["question"],
        answer=str(entry["answer"]),
        choices=_strings(entry, "choices", where),
        answers=answers,
        **_labels(entry, where, category_field),
    )


def conversation_questions(
    entry: dict[str, Any], number: int, path: Path, category_field: str = "category"
) -> list[Question]:
    """Every question of the conversation that the entry of that number in a file is; none unless it has one picture.

    Raises:
        UserError: it is malformed.
    """
    where = f"{path}, entry {number}"
    images = [path.parent / name for name in image_names(entry, where)]
    if len(images) != 1:
        return []
    record = record_from(entry, images, where=where, name=str(number), source=path.stem)
    return _record_questions(record, where, category_field)


def _record_questions(record: Record, where: str, category_field: str) -> list[Question]:
    """The questions of a conversation about one picture; all have its id."""
    asked, answers = (_texts(record, role) for role in ("user", "assistant"))
    choices = record.extra.get("choices") or []
    if not (isinstance(choices, list) and choices and isinstance(choices[0], list)):  # one list: of the first question
        choices = [choices, *[[]] * (len(asked) - 1)]
    if len(choices) != len(asked):
        raise UserError(f"sample {record.id}: {len(choices)} lists of choices for {len(asked)} questions")
    labels = _labels({"task": record.source, **record.extra}, where, category_field)
    return [
        Question(
            id=record.id,
            image=record.images[0],
            question=question,
            answer=answer,
            choices=_strings({"choices": closed}, "choices", where),
            answers=(),
            **labels,
        )
        for question, answer, closed in zip(asked, answers, choices, strict=True)
    ]


def _texts(record: Record, role: str) -> list[str]:
    contents = [message["content"] for message in record.chat if message["role"] == role]
    return [" ".join(part["text"] for part in content if part["type"] == "text").strip() for content in contents]


def _labels(entry: dict[str, Any], where: str, category_field: str) -> dict[str, str]:
    """Task, category, metric and group of an entry."""
    task = str(entry.get("task") or "all")
    category = entry.get(category_field)
    if category is None and category_field != "category":
        raise UserError(f"{where} has no field {category_field!r}: name the field that holds the category")
    return {
        "task": task,
        "category": task if category is None else str(category),
        "metric": str(entry.get("metric") or "exact"),
        "group": str(entry.get("group") or ""),
    }


def _strings(entry: dict[str, Any], key: str, where: str) -> tuple[str, ...]:
    values = entry.get(key) or []
    if not isinstance(values, list) or not all(isinstance(value, (str, int, float)) for value in values):
        raise UserError(f"{where}: its {key} are not a list of texts")
    return tuple(map(str, values))


# --- fewer questions, or in another form ----------------------------------------------------------------------------


def pick(questions: Sequence[Question], limit: int | None, seed: int = 0) -> list[Question]:
    """At most ``limit`` questions, as alike in number per task as they go, in their own order."""
    if limit is None or limit >= len(questions):
        return list(questions)
    by_task: dict[str, list[int]] = defaultdict(list)
    for index, question in enumerate(questions):
        by_task[question.task].append(index)
    rng = random.Random(seed)
    for indices in by_task.values():
        rng.shuffle(indices)
    chosen: list[int] = []
    while len(chosen) < limit:
        for indices in by_task.values():
            if indices and len(chosen) < limit:
                chosen.append(indices.pop())
    return [questions[index] for index in sorted(chosen)]


def pick_questions(questions: Sequence[Question], limit: int | None) -> list[Question]:
    """``pick`` with the variants of an item kept together: half a group is easier to get right as a whole.

    At least one item is taken.
    """
    if limit is None or limit >= len(questions):
        return list(questions)
    items: dict[tuple[str, str], list[Question]] = defaultdict(list)
    for question in questions:
        items[item_of(question)].append(question)
    firsts = [members[0] for members in items.values()]

    def taken(count: int) -> list[Question]:
        chosen = set(map(item_of, pick(firsts, count)))
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
