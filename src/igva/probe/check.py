"""Whether questions can be answered without their pictures: two guessers that never see one.

The majority guesser gives the answer that was most often right in training for the same wording; the blind learner is a
conditional logit over the choices, on the question's words, the choice, its position and whether the question names it.
"""

from __future__ import annotations

import math
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from igva.data.imagined import FIELD
from igva.data.questions import Question as FileQuestion
from igva.data.questions import conversation_questions, entry_question, read_entries
from igva.data.records import check_entry
from igva.errors import UserError
from igva.model.processing_igva import instruction_text
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
    """The questions of ``data.json``; raises ``UserError`` where it is missing, malformed or not a suite's."""
    questions: list[FileQuestion] = []
    for number, entry in enumerate(read_entries(path)):
        check_entry(entry, f"{path}, entry {number}")
        if entry.get("conversations") and not entry.get(FIELD):  # what is not in the picture is never tested
            questions += conversation_questions({"image": "unseen", **entry}, number, path)
    return _guessable(questions, path)


def read_test(path: Path) -> list[Question]:
    """The questions of ``questions.json``; raises ``UserError`` where it is missing, malformed or not a suite's."""
    questions: list[FileQuestion] = []
    for number, entry in enumerate(read_entries(path)):
        check_entry(entry, f"{path}, entry {number}")
        if entry.get("choices"):
            questions.append(entry_question(entry, number, path))
    return _guessable(questions, path)


def _guessable(questions: Sequence[FileQuestion], path: Path) -> list[Question]:
    """Those with choices, without their pictures: what is described in free words is never tested."""
    rows = [Question(q.task, instruction_text(q.question), q.answer, q.choices) for q in questions if q.choices]
    if not rows:
        raise UserError(f"{path} has no questions with choices: give a list of questions of `igva probe build`")
    return rows


def check(train: Sequence[Question], test: Sequence[Question]) -> list[Verdict]:
    """Train both guessers, let them guess, and judge every task of ``test``."""
    from tqdm import tqdm

    majority, learner = _Majority(train), _Learner()
    order = np.random.default_rng(0)
    for epoch in tqdm(range(EPOCHS), desc="blind learner", unit="pass"):
        for index in order.permutation(len(train)):
            learner.learn(train[index], RATE / (1 + epoch))
    tasks: dict[str, list[Question]] = defaultdict(list)
    for row in test:
        tasks[row.task].append(row)
    return [_judge(task, rows, majority, learner) for task, rows in tasks.items()]


def _judge(task: str, rows: list[Question], majority: _Majority, learner: _Learner) -> Verdict:
    chance = sum(1 / len(row.choices) for row in rows) / len(rows)
    shares = [sum(guesser.guess(row) == row.answer for row in rows) / len(rows) for guesser in (majority, learner)]
    error = math.sqrt(chance * (1 - chance) / len(rows))
    leaks = max(shares) - chance > max(MARGIN / 100, ERRORS * error)
    percents = [round(100 * value, 1) for value in (chance, *shares, error)]
    return Verdict(task, len(rows), percents[0], percents[1], percents[2], percents[3], leaks)


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
        """A choice by its text where the list is the task's own, by its position where it changes."""
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
        """Indices into the table: one line per choice."""
        question = row.question.lower()
        words = re.findall(r"[\w']+", question)[:24]
        heads = [zlib.crc32(f"{row.task}\0{word}".encode()) for word in ("", *words)]
        lines = []
        for index, choice in enumerate(row.choices):
            named = question.find(choice)
            before = sum(0 <= question.find(other) < named for other in row.choices) if len(row.choices) <= 4 else 0
            tail = zlib.crc32(f"{choice}".encode())
            own = [zlib.crc32(f"{row.task}\0{index if len(row.choices) <= 8 else ''}\0{named >= 0}\0{before}".encode())]
            lines.append([*((head * 31 + tail) % TABLE for head in heads), *(h % TABLE for h in own)])
        return np.array(lines)

    def learn(self, row: Question, rate: float) -> None:
        indices = self.features(row)
        scores = self.weights[indices].sum(axis=1)
        shares = np.exp(scores - scores.max())
        shares /= shares.sum()
        shares[row.choices.index(row.answer)] -= 1
        np.subtract.at(self.weights, indices, rate / indices.shape[1] * shares[:, None])

    def guess(self, row: Question) -> str:
        return row.choices[int(self.weights[self.features(row)].sum(axis=1).argmax())]
