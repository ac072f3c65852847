"""What lets long work be stopped and gone on with: the settings it was begun with, and results line by line."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from igva.errors import UserError
from igva.files import write_file, write_json


def claim(file: Path, settings: Mapping[str, Any], results: Path, binding: Collection[str] | None = None) -> None:
    """Write down in ``file`` what ``results`` are made with, or compare it with what they were begun with.

    Args:
        settings: of now, as JSON values.
        results: a file, or a folder, in which ``file`` may lie; what lies in a folder without ``file`` is no result.
        binding: the settings that must be the same; None: all.

    Raises:
        UserError: the results are there and were made with other settings (the message names the first that differs),
            or nobody knows with which.
    """
    now = json.loads(json.dumps(settings))
    known = _known(file)
    if results.is_dir():
        begun = file.exists() and any(each != file and not each.name.startswith(".") for each in results.iterdir())
    else:
        begun = results.is_file() and results.stat().st_size > 0
    if begun:
        if known is None:
            raise UserError(f"{results} was made with unknown settings: name another output")
        for key in now if binding is None else binding:
            if known.get(key) != now[key]:
                raise UserError(
                    f"{results} was made with {key} {known.get(key)!r}, now it is {now[key]!r}: name another output, "
                    "or use the same settings"
                )
    write_json(file, {**(known or {}), **now} if begun else now)


def _known(file: Path) -> dict[str, Any] | None:
    """None where there is none, or another program's, or it is damaged."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and found else None


class Journal:
    """A JSON Lines file to which results are added as they come; a line that a killed process left half is cut off."""

    def __init__(self, file: Path):
        self.file = file

    def entries(self) -> Iterator[dict[str, Any]]:
        """Every whole line, ``{}`` for one that is damaged; none where there is no file."""
        with suppress(FileNotFoundError), self.file.open("rb") as stream:
            for raw in stream:
                if raw.endswith(b"\n"):
                    yield _entry(raw)

    @contextmanager
    def adding(self) -> Iterator[Callable[[Mapping[str, Any]], None]]:
        """Yield a function that adds an entry: it is in the file when the function returns."""
        self._cut()
        with self.file.open("ab") as sink:

            def add(entry: Mapping[str, Any]) -> None:
                sink.write(json_line(entry).encode())
                sink.flush()

            yield add

    def replace(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Exactly these in place of what is there; nobody sees half of them."""
        write_file(self.file, "".join(map(json_line, entries)))

    def _cut(self) -> None:
        whole = 0
        with suppress(FileNotFoundError), self.file.open("r+b") as stream:
            for raw in stream:
                whole += len(raw) if raw.endswith(b"\n") else 0
            stream.truncate(whole)


def json_line(entry: Mapping[str, Any]) -> str:
    """An entry as it stands in a `Journal`."""
    return json.dumps(entry, ensure_ascii=False) + "\n"


def _entry(raw: bytes) -> dict[str, Any]:
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
