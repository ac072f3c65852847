"""Intervals and tests for scores; scipy's, in the form the tables want."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import pvariance
from typing import Any

from igva.errors import UserError


def _stats() -> Any:
    try:
        from scipy import stats
    except ImportError as error:
        raise UserError("intervals and tests need scipy: pip install 'igva[eval]'") from error
    return stats


def proportion_interval(right: int, total: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share, in 0..1."""
    interval = _stats().binomtest(right, total).proportion_ci(confidence_level=level, method="wilson")
    return float(interval.low), float(interval.high)


def mean_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Interval of the mean of graded scores, by Student's t; a single or constant score has an interval of width 0."""
    mean = sum(values) / len(values)
    if len(values) < 2 or len(set(values)) == 1:
        return mean, mean
    error = float(_stats().sem(values))
    low, high = _stats().t.interval(level, len(values) - 1, loc=mean, scale=error)
    return float(low), float(high)


def mean_of_means_interval(groups: Sequence[Sequence[float]], level: float = 0.95) -> tuple[float, float]:
    """Interval of the unweighted mean of the groups' mean scores (0..1), the groups themselves being fixed.

    By the normal law. The spread within a group is that of its scores with two right and two wrong ones added (Agresti
    and Coull 1998), since a few scores that happen to be equal do not show that all are.
    """
    mean = math.fsum(math.fsum(values) / len(values) for values in groups) / len(groups)
    squares = [pvariance([*values, 0.0, 0.0, 1.0, 1.0]) / (len(values) + 4) for values in groups]
    half = float(_stats().norm.ppf(0.5 + level / 2)) * math.sqrt(math.fsum(squares)) / len(groups)
    return mean - half, mean + half


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p of McNemar's test: the questions that only one of two models answered right."""
    if only_first + only_second == 0:
        return 1.0
    return float(_stats().binomtest(only_first, only_first + only_second, 0.5).pvalue)


def paired_t(first: Sequence[float], second: Sequence[float]) -> tuple[float, float, float]:
    """First minus second, pair by pair: mean difference, its standard error, and the two-sided p of a paired t test.

    Differences that are all equal give the error 0, and p 1 where they are zero, else 0.
    """
    differences = [a - b for a, b in zip(first, second, strict=True)]
    mean = sum(differences) / len(differences)
    if len(differences) < 2 or len(set(differences)) == 1:
        return mean, 0.0, 1.0 if mean == 0 else 0.0
    return mean, float(_stats().sem(differences)), float(_stats().ttest_rel(first, second).pvalue)
