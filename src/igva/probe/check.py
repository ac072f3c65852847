"""Whether questions can be answered without their pictures: two guessers that never see one.

The majority guesser gives the answer that was most often right in training for the same wording; the blind learner is a
conditional logit over the choices, on the question's words, the choice, its position and whether the question names it.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from igva.errors import UserError
from igva.probe.edition import SUFFIX
from igva.probe.task_base import Question

TABLE = 1 << 20  # hashed features
MARGIN = 5.0  # points above chance that are too many
ERRORS = 3.3  # standard errors: of 58 comparisons (29 tasks, two guessers) one in twenty suites is flagged by bad luck
EPOCHS, RATE = 6, 0.3


@dataclass(frozen=True)
class Verdict:
    """How far two guessers come in a task, in percent.

    Attributes:
        error: one standard error of a share as large as chance, in points.
        leaks: a guesser is more than ``MARGIN`` points, and more than ``ERRORS`` errors, above chance.
    """

    task: str
    questions: int
    chance: float
    majority: float
    blind: float
    error: float
    leaks: bool


def read_train(path: Path) -> list[Question]:
    """The questions of ``data.json``; raises ``UserError`` where it is missing or none of the suite's."""
    rows = []
    for record in _load(path):
        if record.get("imagined"):  # about what is not in the picture: never tested
            continue
        turns = record.get("conversations") or []
        pairs = zip(turns[::2], turns[1::2], record.get("choices") or [], strict=False)
        for human, gpt, choices in pairs:
            if not choices:  # a description: never tested
                continue
            text = human["value"].removeprefix("<image>\n").removesuffix(SUFFIX)
            rows.append(Question(record["task"], text, gpt["value"], tuple(choices)))
    return _some(rows, path)


def read_test(path: Path) -> list[Question]:
    """The questions of ``questions.json``; raises ``UserError`` where it is missing or none of the suite's."""
    entries = [entry for entry in _load(path) if entry.get("choices")]
    return _some([Question(e["task"], e["question"], e["answer"], tuple(e["choices"])) for e in entries], path)


def _load(path: Path) -> list[dict[str, Any]]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: make it with `igva probe build`") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}: not valid JSON ({error.msg})") from error
    if not isinstance(data, list) or not all(isinstance(entry, dict) for entry in data):
        raise UserError(f"{path}: a list of questions or conversations is expected")
    return data


def _some(rows: list[Question], path: Path) -> list[Question]:
    if not rows:
        raise UserError(f"{path} has no questions with choices: give a file of `igva probe build`")
    return rows


def check(train: Sequence[Question], test: Sequence[Question]) -> list[Verdict]:
    """Train both guessers, let them guess, and judge every task of ``test``."""
    from tqdm import tqdm

    majority, learner = _Majority(train), _Learner()
    order = np.random.default_rng(0)
    for epoch in tqdm(range(EPOCHS), desc="blind learner", unit="pass"):
        for number in order.permutation(len(train)):
            learner.learn(train[number], RATE / (1 + epoch))
    tasks: dict[str, list[Question]] = defaultdict(list)
    for row in test:
        tasks[row.task].append(row)
    return [_judge(task, rows, majority, learner) for task, rows in tasks.items()]


def _judge(task: str, rows: list[Question], majority: _Majority, learner: _Learner) -> Verdict:
    chance = sum(1 / len(row.choices) for row in rows) / len(rows)
    shares = [sum(guesser.guess(row) == row.answer for row in rows) / len(rows) for guesser in (majority, learner)]
    error = math.sqrt(chance * (1 - chance) / len(rows))
    leaks = max(shares) - chance > max(MARGIN / 100, ERRORS * error)
    percent = [round(100 * value, 1) for value in (chance, *shares, error)]
    return Verdict(task, len(rows), percent[0], percent[1], percent[2], percent[3], leaks)


class _Majority:
    """The answer most often right for the same wording (choices blanked), else for the same task."""

    def __init__(self, train: Sequence[Question]) -> None:
        self._counts: dict[str, Counter[str]] = defaultdict(Counter)
        for row in train:
            for key in self._keys(row):
                self._counts[key][self._role(row, row.answer)] += 1

    def _keys(self, row: Question) -> tuple[str, str]:
        wording = row.question.lower()
        for choice in sorted(row.choices, key=len, reverse=True)[:8]:
            wording = wording.replace(choice, "_")
        return f"{row.task}\0{wording}", row.task

    def _role(self, row: Question, choice: str) -> str:
        """A choice by its text where the list is the task's own, by its place where it changes."""
        return choice if len(row.choices) > 4 or choice in ("yes", "no") else f"#{row.choices.index(choice)}"

    def guess(self, row: Question) -> str:
        roles = {self._role(row, choice): choice for choice in row.choices}
        for key in self._keys(row):
            known = [(count, role) for role, count in self._counts[key].items() if role in roles]
            if known:
                return roles[max(known)[1]]
        return row.choices[0]


class _Learner:
    """Conditional logit by stochastic gradient steps over hashed features."""

    def __init__(self) -> None:
        self.weights: NDArray[np.float64] = np.zeros(TABLE)

    def features(self, row: Question) -> NDArray[np.int64]:
        """Rows of the table of weights, (choices, features)."""
        question = row.question.lower()
        words = re.findall(r"[\w']+", question)[:24]
        heads = [zlib.crc32(f"{row.task}\0{word}".encode()) for word in ("", *words)]
        lines = []
        for number, choice in enumerate(row.choices):
            named = question.find(choice)
            before = sum(0 <= question.find(other) < named for other in row.choices) if len(row.choices) <= 4 else 0
            tail = zlib.crc32(f"{choice}".encode())
            position = number if len(row.choices) <= 8 else ""
            own = zlib.crc32(f"{row.task}\0{position}\0{named >= 0}\0{before}".encode())
            lines.append([*((head * 31 + tail) % TABLE for head in heads), own % TABLE])
        return np.array(lines)

    def learn(self, row: Question, rate: float) -> None:
        features = self.features(row)
        scores = self.weights[features].sum(axis=1)
        shares = np.exp(scores - scores.max())
        shares /= shares.sum()
        shares[row.choices.index(row.answer)] -= 1
        np.subtract.at(self.weights, features, rate / features.shape[1] * shares[:, None])

    def guess(self, row: Question) -> str:
        return row.choices[int(self.weights[self.features(row)].sum(axis=1).argmax())]
