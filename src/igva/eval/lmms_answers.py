"""The answers of one task as they come, on disk: an interrupted run goes on behind the last one.

lmms-eval 0.7.3 has a cache of its own (``use_cache``), which would not do: it writes once all of a task's questions are
answered, so that a killed run loses them, and tells models apart by their arguments, so that a folder that was trained
on gets its old answers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from igva.resume import Journal


class Answers:
    """A journal: what the answers depend on in the first line, then one answer per line.

    Attributes:
        asked: questions whose answer was wanted since ``open``.
    """

    def __init__(self) -> None:
        self.asked = 0
        self._known: dict[str, str] = {}
        self._add: Callable[[Mapping[str, Any]], None] | None = None
        self._open = ExitStack()

    def open(self, path: Path, settings: dict[str, Any]) -> None:
        """Take over the file's answers if they were given under the same settings, else begin it anew."""
        self.asked = 0
        journal = Journal(path)
        head = json.loads(json.dumps({"settings": settings}))
        entries = list(journal.entries())
        if entries[:1] != [head]:
            entries = []
            journal.replace([head])
        self._known = {entry["id"]: entry["answer"] for entry in entries[1:] if entry}
        self._add = self._open.enter_context(journal.adding())

    def close(self) -> None:
        self._open.close()
        self._add, self._known = None, {}

    def get(self, key: str) -> str | None:
        self.asked += 1
        return self._known.get(key)

    def put(self, key: str, answer: str) -> None:
        if self._add is not None:
            self._add({"id": key, "answer": answer})
