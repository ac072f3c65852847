"""Many questions in a file → their answers in a file, line for line; what was stopped goes on."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from tqdm import tqdm

from igva.data.bounded import check_file, lines
from igva.data.images import open_image
from igva.errors import UserError
from igva.files import sha256_of, write_errors
from igva.resume import Journal, claim
from igva.serve.strict_json import read_json

WINDOW = 4096  # lines handed to an engine at once: what it may hold in memory


@dataclass(frozen=True)
class Line:
    """One line of the input.

    Attributes:
        id: the line's own ``id``, or its number from 1.
        images: paths; relative ones are relative to the input file.
        error: why it cannot be asked; None where it can.
    """

    id: str
    images: tuple[Path, ...]
    question: str
    error: str | None = None


# Lines → (answer, None) or (None, why it failed), in their order.
Answerer = Callable[[Sequence[Line]], Iterator[tuple[str | None, str | None]]]


@dataclass(frozen=True)
class Outcome:
    """How many lines were answered, and how many failed."""

    answered: int
    failed: int


def run_batch(source: Path, out: Path, settings: dict[str, Any], answerer: Answerer, retry: bool = False) -> Outcome:
    """Answer every line of ``source`` into ``out``: ``{"id", "answer"}``, or ``{"id", "error"}``.

    A call into a file that is there goes on behind its last whole line. ``out`` + ``.settings.json`` tells under which
    settings it was begun.

    Args:
        settings: what the answers depend on, besides the input.
        retry: ask the lines again that failed before.

    Raises:
        UserError: the input is missing, the output belongs to another input or other settings, another process is
            writing it, or it cannot be written.
    """
    check_file(source)
    with write_errors(out), _alone(out):
        claim(out.with_name(out.name + ".settings.json"), settings | {"input": sha256_of(source)}, out)
        journal = Journal(out)
        done = _count_known(journal, source)
        total = sum(1 for _ in read_lines(source))
        with tqdm(total=total, initial=done, desc="questions") as bar, journal.adding() as add:
            for entry in _answers(itertools.islice(read_lines(source), done, None), answerer):
                add(entry)
                bar.update()
        if retry:
            _retry(source, journal, answerer)
    failed = sum("error" in entry for entry in journal.entries())
    return Outcome(total - failed, failed)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """The only process that writes this output: two at once would mix their lines."""
    lock = FileLock(out.with_name(out.name + ".lock"), blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(f"another igva batch is writing {out}: wait for it, or name another output") from None
    try:
        yield
    finally:
        lock.release()


def read_lines(source: Path) -> Iterator[Line]:
    """The lines of a JSONL file: ``question``, ``image`` (a path, or a list of them), and ``id`` where there is one.

    A line that says something else is a line that failed: the others are still asked.
    """
    for number, raw in enumerate(lines(source), start=1):
        if isinstance(raw, UserError):
            yield Line(str(number), (), "", str(raw))
        elif raw.strip():
            yield _line(raw.decode("utf-8", errors="replace"), number, source.parent)


def _line(text: str, number: int, folder: Path) -> Line:
    name = str(number)
    try:
        entry = read_json(text)
    except ValueError as error:
        return Line(name, (), "", f"line {number} {error}")
    if not isinstance(entry, dict):
        return Line(name, (), "", f'line {number} is not an object: {{"image": …, "question": …}}')
    name = str(entry.get("id", number))
    images = entry.get("image", entry.get("images", []))
    images = [images] if isinstance(images, str) else images
    question = entry.get("question")
    if not isinstance(question, str) or not question.strip():
        return Line(name, (), "", f"line {number} has no question")
    if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
        return Line(name, (), "", f"line {number}: image is a path or a list of paths")
    return Line(name, tuple(folder / image for image in images), question)


def _answers(asked: Iterator[Line], answerer: Answerer) -> Iterator[dict[str, Any]]:
    while window := list(itertools.islice(asked, WINDOW)):
        good = answerer([line for line in window if line.error is None])
        for line in window:
            answer, error = (None, line.error) if line.error is not None else next(good)
            yield {"id": line.id, **({"answer": answer} if error is None else {"error": error})}


def _retry(source: Path, journal: Journal, answerer: Answerer) -> None:
    """Ask again what failed; the file is replaced once all is known."""
    entries = list(journal.entries())
    again = (line for line, entry in zip(read_lines(source), entries, strict=True) if "error" in entry)
    fresh = _answers(again, answerer)
    journal.replace(next(fresh) if "error" in entry else entry for entry in entries)


def _count_known(journal: Journal, source: Path) -> int:
    """How many lines have been answered.

    Raises:
        UserError: the answers are not those of these lines.
    """
    count = 0
    asked = read_lines(source)
    for count, entry in enumerate(journal.entries(), start=1):
        line = next(asked, None)
        if line is None or entry.get("id") != line.id:
            raise UserError(f"{journal.file} has another line {count} than {source} asks for: name another output")
    return count


class LocalAnswerer:
    """Answers in this process, ``batch_size`` lines at a time."""

    def __init__(self, model: Any, processor: Any, batch_size: int, max_new_tokens: int):
        self.model, self.processor = model, processor
        self.batch_size, self.max_new_tokens = batch_size, max_new_tokens

    def __call__(self, lines: Sequence[Line]) -> Iterator[tuple[str | None, str | None]]:
        for start in range(0, len(lines), self.batch_size):
            yield from self.answer(lines[start : start + self.batch_size])

    def answer(self, lines: Sequence[Line]) -> list[tuple[str | None, str | None]]:
        """Answer one batch; a picture that cannot be read fails its own line alone."""
        from igva.answering import answer_chats, user_turn

        chats: dict[int, list[dict[str, Any]]] = {}
        results: list[tuple[str | None, str | None]] = [(None, None)] * len(lines)
        for index, line in enumerate(lines):
            try:
                chats[index] = [user_turn(line.question, [open_image(image) for image in line.images])]
            except UserError as error:
                results[index] = (None, str(error))
        if chats:
            texts = answer_chats(self.model, self.processor, list(chats.values()), self.max_new_tokens)
            for index, text in zip(chats, texts, strict=True):
                results[index] = (text, None)
        return results
