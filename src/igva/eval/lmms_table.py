"""Scores of benchmarks by category."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from igva.eval.lmms_suite import CATEGORIES, UNSORTED, Benchmark


def by_category(benchmarks: Sequence[Benchmark], results: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Per category its benchmarks, each with value and percentage, and the mean of the percentages.

    A category with a missing score has no mean: one over the rest could not be compared with anybody else's.
    """
    categories = {}
    for category in (*CATEGORIES, UNSORTED):
        members = [_line(b, results[b.task]) for b in benchmarks if b.category == category]
        if members:
            percent = [member["percent"] for member in members]
            whole = None not in percent
            categories[category] = {"mean": round(sum(percent) / len(percent), 2) if whole else None, "tasks": members}
    return categories


def _line(benchmark: Benchmark, result: dict[str, Any]) -> dict[str, Any]:
    value = None if result["missing"] else result["metrics"][result["metric"]]
    return {
        "task": benchmark.task,
        "title": benchmark.name,
        "metric": result["metric"],
        "value": value,
        "percent": None if value is None else round(100 * value / benchmark.full, 2),
        "questions": result.get("questions"),
        "missing": result["missing"],
    }


def text(categories: dict[str, Any]) -> str:
    """An aligned table for the terminal."""
    lines = [f"{'':22s} {'metric':26s} {'value':>10s} {'percent':>8s} {'questions':>9s}"]
    for category, entry in categories.items():
        lines.append(f"{category:22s} {'mean':26s} {'':>10s} {_number(entry['mean']):>8s}")
        for member in entry["tasks"]:
            value = "missing" if member["value"] is None else f"{member['value']:.4g}"
            lines.append(
                f"  {member['title']:20s} {member['metric']:26s} {value:>10s} {_number(member['percent']):>8s} "
                f"{member['questions'] or '':>9}"
            )
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
