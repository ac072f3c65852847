"""Two sets of scores on the same questions: how far apart, and whether chance alone would do that."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from igva.data.questions import Question
from igva.eval.statistics import mcnemar, mean_interval, paired_t
from igva.study.trials import Outcome
from igva.tables import Cell

ALL = "all"  # the row of all questions
LEVEL = 0.05  # of a test, after correction
PAIRED_COLUMNS = (
    "questions",
    "before, %",
    "after, %",
    "difference",
    "low",
    "high",
    "only before",
    "only after",
    "p",
)


@dataclass(frozen=True)
class Run:
    """What one model answered: question id → its words, and their score in 0..1."""

    answers: dict[str, str]
    scores: dict[str, float]


@dataclass(frozen=True)
class Paired:
    """Second against first, in percent and points.

    Attributes:
        count: units compared: questions, or groups of linked questions.
        low, high: 95 % interval of the difference.
        only_first, only_second: units on which that one alone scored higher.
        p: two-sided: McNemar's exact test where every score is 0 or 1, else a paired t test.
    """

    count: int
    first: float
    second: float
    difference: float
    low: float
    high: float
    only_first: int
    only_second: int
    p: float


def compare_scores(first: Sequence[float], second: Sequence[float]) -> Paired:
    """Compare scores in 0..1, one per unit, in the same order."""
    gains = [b - a for a, b in zip(first, second, strict=True)]
    only_first, only_second = sum(gain < 0 for gain in gains), sum(gain > 0 for gain in gains)
    low, high = mean_interval(gains)
    if {*first, *second} <= {0.0, 1.0}:
        p = mcnemar(only_first, only_second)
    else:
        p = paired_t(second, first)[2] if only_first + only_second else 1.0
    count = len(gains)
    return Paired(
        count=count,
        first=100 * sum(first) / count,
        second=100 * sum(second) / count,
        difference=100 * sum(gains) / count,
        low=100 * low,
        high=100 * high,
        only_first=only_first,
        only_second=only_second,
        p=p,
    )


def paired_cells(pair: Paired) -> list[Cell]:
    """The cells of ``PAIRED_COLUMNS``."""
    numbers = (pair.first, pair.second, pair.difference, pair.low, pair.high)
    return [pair.count, *(round(value, 2) for value in numbers), pair.only_first, pair.only_second, pair.p]


def by_unit(questions: Sequence[Question], scores: Mapping[str, float]) -> list[float]:
    """One score per unit: linked questions (of one ``group``) are one unit with their mean, since they are no
    independent evidence."""
    units: dict[tuple[str, str], list[float]] = defaultdict(list)
    for question in questions:
        units[("group", question.group) if question.group else ("question", question.id)].append(scores[question.id])
    return [sum(values) / len(values) for values in units.values()]


def compare_questions(questions: Sequence[Question], first: Mapping[str, float], second: Mapping[str, float]) -> Paired:
    """Compare two runs, question id → score, on some questions."""
    return compare_scores(by_unit(questions, first), by_unit(questions, second))


def by_category(questions: Sequence[Question]) -> dict[str, list[Question]]:
    """The questions of each category, in alphabetical order of these."""
    members: dict[str, list[Question]] = defaultdict(list)
    for question in questions:
        members[question.category].append(question)
    return {name: members[name] for name in sorted(members)}


def largest(counts: Mapping[str, int], most: int = 30) -> list[str]:
    """At most that many names, those with the largest counts, in their own order: a picture cannot show more."""
    kept = sorted(counts, key=lambda name: -counts[name])[:most]
    return [name for name in counts if name in kept]


def compare_outcomes(
    first: Sequence[Outcome], second: Sequence[Outcome], ids: Sequence[str]
) -> tuple[float, float, float]:
    """Second minus first on the same questions, each question's score averaged over the seeds.

    Returns:
        Difference and standard error in points, and the two-sided p of a paired t test over the questions. The error
        is over questions: what another sample of them would change; the seeds' own spread is in ``trials.standing``.
    """
    means = [[sum(run.scores[name] for run in runs) / len(runs) for name in ids] for runs in (second, first)]
    difference, error, p = paired_t(*means)
    return 100 * difference, 100 * error, p


def holm(values: Mapping[str, float]) -> dict[str, float]:
    """p values corrected for looking at several of them (Holm 1979)."""
    corrected: dict[str, float] = {}
    worst = 0.0
    for rank, name in enumerate(sorted(values, key=lambda name: values[name])):
        worst = max(worst, min(1.0, values[name] * (len(values) - rank)))
        corrected[name] = worst
    return {name: corrected[name] for name in values}
