"""From answers to scores: per task, per category, and their means, with intervals and chance beside them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from igva.data.questions import Question
from igva.eval.metrics import METRICS, Graded
from igva.eval.statistics import mean_interval, mean_of_means_interval, proportion_interval


def grade_all(questions: Sequence[Question], predictions: Mapping[str, str]) -> list[Graded]:
    """Every question with its answer (question id → words) and the score of its metric."""
    return [Graded(q, predictions[q.id], METRICS[q.metric].score_one(q, predictions[q.id])) for q in questions]


def summarise(graded: Sequence[Graded]) -> dict[str, Any]:
    """Scores in per cent.

    Returns:
        ``tasks`` and ``categories``: name → ``accuracy``, ``interval`` (95 %), ``chance`` (None where a question is
        open), ``questions``, ``unparsed``, ``metric``; tasks also ``category`` and ``figures`` of the metric.
        ``mean`` over the tasks with its ``interval`` and ``chance``, ``mean_categories`` over the categories with
        ``interval_categories`` and ``chance_categories``; ``questions`` and ``unparsed`` in all.
    """
    by_task, by_category = _split(graded, "task"), _split(graded, "category")
    tasks = {name: _task(members) for name, members in by_task.items()}
    categories = {name: _entry(members) for name, members in by_category.items()}
    return {
        "mean": _mean([entry["accuracy"] for entry in tasks.values()]),
        "interval": _percents(mean_of_means_interval([_units(members) for members in by_task.values()])),
        "chance": _mean([entry["chance"] for entry in tasks.values()]),
        "mean_categories": _mean([entry["accuracy"] for entry in categories.values()]),
        "interval_categories": _percents(mean_of_means_interval([_units(members) for members in by_category.values()])),
        "chance_categories": _mean([entry["chance"] for entry in categories.values()]),
        "questions": len(graded),
        "unparsed": sum(one.score is None for one in graded),
        "categories": categories,
        "tasks": tasks,
    }


def _split(graded: Sequence[Graded], field: str) -> dict[str, list[Graded]]:
    parts: dict[str, list[Graded]] = defaultdict(list)
    for one in graded:
        parts[getattr(one.question, field)].append(one)
    return dict(sorted(parts.items()))


def _task(graded: Sequence[Graded]) -> dict[str, Any]:
    figures: dict[str, float] = {}
    for name, members in _by_metric(graded).items():
        if compute := METRICS[name].figures:
            figures |= {key: round(value, 4) for key, value in compute(members).items()}
    categories = sorted({one.question.category for one in graded})
    return {"category": ", ".join(categories), **_entry(graded), "figures": figures}


def _entry(graded: Sequence[Graded]) -> dict[str, Any]:
    """The questions of a task or category taken together; the mean of all is weighted by independent items."""
    parts = _by_metric(graded)
    units = {name: METRICS[name].units(members) for name, members in parts.items()}
    values = [value for part in units.values() for value in part]
    chances = [(METRICS[name].chance(members), len(units[name])) for name, members in parts.items()]
    known = [(chance, count) for chance, count in chances if chance is not None]
    chance = math.fsum(c * n for c, n in known) / len(values) if len(known) == len(chances) else None
    return {
        "accuracy": _percent(math.fsum(values) / len(values)),
        "interval": _percents(_interval(values)),
        "chance": None if chance is None else _percent(chance),
        "questions": len(graded),
        "unparsed": sum(one.score is None for one in graded),
        "metric": ", ".join(parts),
    }


def _units(graded: Sequence[Graded]) -> list[float]:
    """The scores of the independent items, whatever their metrics."""
    return [value for name, members in _by_metric(graded).items() for value in METRICS[name].units(members)]


def _interval(values: Sequence[float]) -> tuple[float, float]:
    """Wilson's for right and wrong, Student's for graded scores."""
    if set(values) <= {0.0, 1.0}:
        return proportion_interval(int(sum(values)), len(values))
    return mean_interval(values)


def _by_metric(graded: Sequence[Graded]) -> dict[str, list[Graded]]:
    parts: dict[str, list[Graded]] = defaultdict(list)
    for one in graded:
        parts[one.question.metric].append(one)
    return dict(sorted(parts.items()))


def _mean(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return round(math.fsum(present) / len(present), 2) if len(present) == len(values) else None


def _percents(interval: tuple[float, float]) -> list[float]:
    low, high = interval
    return [_percent(max(0.0, low)), _percent(min(1.0, high))]


def _percent(share: float) -> float:
    return round(100 * share, 2)
