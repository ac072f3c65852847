"""From the outcomes of a study to what its tables say: means over seeds, and paired comparisons."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from igva.eval.statistics import paired_t
from igva.study.items import Item
from igva.study.report import Cell, Table
from igva.study.trials import Outcome


def by_label(outcomes: Iterable[Outcome]) -> dict[str, list[Outcome]]:
    """The runs of each label, one per seed, in the order they came."""
    runs: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        runs[outcome.label].append(outcome)
    return dict(runs)


def ids_by(items: Iterable[Item], kind: str) -> dict[str, list[str]]:
    """Question ids per ``category`` or ``task``, in alphabetical order of these."""
    ids: dict[str, list[str]] = defaultdict(list)
    for item in items:
        ids[getattr(item, kind)].append(item.id)
    return {name: ids[name] for name in sorted(ids)}


def accuracy(outcome: Outcome, ids: Sequence[str]) -> float:
    """Mean score of these questions, in percent."""
    return 100 * sum(outcome.scores[name] for name in ids) / len(ids)


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean over seeds and its standard error (None for a single seed)."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, None
    return mean, math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))


def standing(runs: Sequence[Outcome], groups: Mapping[str, Sequence[str]]) -> dict[str, tuple[float, float | None]]:
    """Percent right per group and, as ``mean``, their plain average: mean over seeds and standard error."""
    per_seed = [{name: accuracy(run, ids) for name, ids in groups.items()} for run in runs]
    table = {name: mean_and_error([row[name] for row in per_seed]) for name in groups}
    table["mean"] = mean_and_error([sum(row.values()) / len(row) for row in per_seed])
    return table


def paired(first: Sequence[Outcome], second: Sequence[Outcome], ids: Sequence[str]) -> tuple[float, float, float]:
    """Second minus first on the same questions, each question's score averaged over the seeds.

    Returns:
        Difference and standard error in points, and the two-sided p of a paired t test over the questions. The error
        is over questions: what another sample of questions would change; the seeds' own spread is in ``standing``.
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


def chance(items: Sequence[Item], ids: Sequence[str], open_answers: int) -> float:
    """Percent right by guessing among the choices (among all known answers where a question has none)."""
    wanted = set(ids)
    shares = [1 / (len(item.choices) or open_answers) for item in items if item.id in wanted]
    return 100 * sum(shares) / len(shares)


def scores_table(runs: dict[str, list[Outcome]], test: Sequence[Item], kind: str) -> Table:
    """Percent right per category or task, and their plain mean, with standard errors over the seeds."""
    groups = ids_by(test, kind)
    answers = len({item.answer for item in test})
    rows: list[list[Cell]] = []
    for label, outcomes in runs.items():
        row: list[Cell] = [label]
        for mean, error in standing(outcomes, groups).values():
            row += [round(mean, 1), None if error is None else round(error, 1)]
        rows.append(row)
    guesses = [chance(test, ids, answers) for ids in groups.values()]
    guess: list[Cell] = ["chance"]
    for value in (*guesses, sum(guesses) / len(guesses)):
        guess += [round(value, 1), None]
    columns = ["", *(text for name in (*groups, "mean") for text in (name, f"{name} ±"))]
    note = "Percent right, mean over seeds; ± is the standard error over seeds (empty for one seed)."
    return Table(f"by_{kind}", f"Accuracy per {kind}", columns, [*rows, guess], note)
