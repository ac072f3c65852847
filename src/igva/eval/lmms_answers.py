"""The answers of one task as they come, on disk: an interrupted run goes on behind the last one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO, Any


class Answers:
    """A JSON-lines file: what the answers depend on in the first line, then one answer per line.

    Attributes:
        asked: questions whose answer was wanted since ``open``.
    """

    def __init__(self) -> None:
        self.asked = 0
        self._known: dict[str, str] = {}
        self._file: IO[str] | None = None

    def open(self, path: Path, settings: dict[str, Any]) -> None:
        """Take over the file's answers if they were given under the same settings, else begin it anew."""
        self.asked = 0
        head = json.dumps({"settings": settings}, sort_keys=True)
        lines = path.read_text().splitlines() if path.is_file() else []
        self._known = _whole(lines[1:]) if lines[:1] == [head] else {}
        self._file = path.open("w")
        self._file.write(head + "\n")
        for key, answer in self._known.items():
            self._write(key, answer)
        self._file.flush()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file, self._known = None, {}

    def get(self, key: str) -> str | None:
        self.asked += 1
        return self._known.get(key)

    def put(self, key: str, answer: str) -> None:
        if self._file is not None:
            self._write(key, answer)
            self._file.flush()

    def _write(self, key: str, answer: str) -> None:
        assert self._file is not None
        self._file.write(json.dumps({"id": key, "answer": answer}, ensure_ascii=False) + "\n")


def _whole(lines: list[str]) -> dict[str, str]:
    found = {}
    for line in lines:
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:  # the last line of a run that was killed
            break
        found[entry["id"]] = entry["answer"]
    return found
