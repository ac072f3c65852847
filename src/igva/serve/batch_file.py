"""Many questions in a file → their answers in a file, line for line; what was stopped goes on."""

from __future__ import annotations

import itertools
import json
import os
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
from igva.files import new_file, sha256_of, write_errors
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
        _claim(out.with_name(out.name + ".settings.json"), out, settings | {"input": sha256_of(source)})
        done = _repair(out, source)
        total = sum(1 for _ in read_lines(source))
        with tqdm(total=total, initial=done, desc="questions") as bar, out.open("a", encoding="utf-8") as sink:
            for line, entry in _answers(itertools.islice(read_lines(source), done, None), answerer):
                sink.write(_dump(line, entry))
                sink.flush()
                bar.update()
        if retry:
            _retry(source, out, answerer)
    failed = sum("error" in entry for entry in _entries(out))
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


def _answers(asked: Iterator[Line], answerer: Answerer) -> Iterator[tuple[Line, dict[str, Any]]]:
    while window := list(itertools.islice(asked, WINDOW)):
        good = answerer([line for line in window if line.error is None])
        for line in window:
            answer, error = (None, line.error) if line.error is not None else next(good)
            yield line, {"answer": answer} if error is None else {"error": error}


def _dump(line: Line, entry: dict[str, Any]) -> str:
    return json.dumps({"id": line.id, **entry}, ensure_ascii=False) + "\n"


def _retry(source: Path, out: Path, answerer: Answerer) -> None:
    """Ask again what failed; the file is replaced once all is known."""
    entries = list(_entries(out))
    again = (line for line, entry in zip(read_lines(source), entries, strict=True) if "error" in entry)
    fresh = _answers(again, answerer)
    with new_file(out) as part, part.open("w", encoding="utf-8") as sink:
        for entry in entries:
            sink.write(_dump(*next(fresh)) if "error" in entry else json.dumps(entry, ensure_ascii=False) + "\n")


def _entries(out: Path) -> Iterator[dict[str, Any]]:
    with out.open(encoding="utf-8") as stream:
        yield from map(json.loads, stream)


def _repair(out: Path, source: Path) -> int:
    """Cut off a last line that a killed run left half-written; return how many whole ones there are.

    Raises:
        UserError: the answers are not those of these lines.
    """
    if not out.exists():
        return 0
    count, whole = 0, 0
    asked = read_lines(source)
    with out.open("rb") as stream:
        for raw in stream:
            if not raw.endswith(b"\n"):
                break
            line = next(asked, None)
            try:
                known = json.loads(raw)["id"]
            except (ValueError, KeyError, TypeError):
                known = None
            if line is None or known != line.id:
                raise UserError(f"{out} has another line {count + 1} than {source} asks for: name another output")
            count += 1
            whole += len(raw)
    os.truncate(out, whole)
    return count


def _claim(file: Path, out: Path, settings: dict[str, Any]) -> None:
    if file.exists() and out.exists():
        known = json.loads(file.read_text(encoding="utf-8"))
        for key, value in settings.items():
            if known.get(key) != value:
                raise UserError(f"{out} was begun with another {key}: name another output, or use the same")
    elif out.exists() and out.stat().st_size:
        raise UserError(f"{out} is there already, and not from this command: name another output")
    else:
        file.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


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
