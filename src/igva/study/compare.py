"""``igva compare``: two models on one person's questions, and whether the difference is more than chance."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from igva.data.questions import Question
from igva.errors import UserError
from igva.files import write_errors, write_file
from igva.plot import new_figure
from igva.study.paired import (
    ALL,
    LEVEL,
    PAIRED_COLUMNS,
    Paired,
    Run,
    by_category,
    compare_questions,
    holm,
    largest,
    paired_cells,
)
from igva.study.report import Figure, write_report
from igva.tables import Cell, Table

SIDES = ("before", "after")


@dataclass(frozen=True)
class Comparison:
    """All questions, then each category; ``p`` of the categories is corrected for looking at several (Holm)."""

    overall: Paired
    categories: dict[str, Paired]
    corrected: dict[str, float]


def compare_runs(questions: Sequence[Question], before: Run, after: Run) -> Comparison:
    """Compare two runs on the same questions."""
    categories = {
        name: compare_questions(members, before.scores, after.scores)
        for name, members in by_category(questions).items()
    }
    return Comparison(
        overall=compare_questions(questions, before.scores, after.scores),
        categories=categories,
        corrected=holm({name: pair.p for name, pair in categories.items()}),
    )


def read_run(folder: Path, questions: Sequence[Question]) -> Run:
    """A complete run of ``igva.eval.run.evaluate``.

    Raises:
        UserError: a question has no answer or no score.
    """
    file = folder / "predictions.jsonl"
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line.strip()]
    rows = {str(line["id"]): line for line in lines}
    try:
        scores = {question.id: float(rows[question.id]["score"]) for question in questions}
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{file} has no score for question {error}: remove the folder {folder} and run again"
        ) from error
    return Run({question.id: str(rows[question.id]["prediction"]) for question in questions}, scores)


def study_compare(
    questions: Sequence[Question],
    out: Path,
    answer: Mapping[str, Callable[[Path], None]],
    names: Mapping[str, str],
    settings: dict[str, Any],
) -> tuple[Path, Comparison]:
    """Have both models answer, compare, and write the report.

    Args:
        answer: for ``before`` and ``after`` what fills a folder with the model's predictions and scores.
        names: what the two models are called.
        settings: what the study was run with.

    Returns:
        The report's path, and the comparison.
    """
    for side in SIDES:
        answer[side](out / side)
    runs = {side: read_run(out / side, questions) for side in SIDES}
    comparison = compare_runs(questions, runs["before"], runs["after"])
    _write_differences(out, questions, runs)
    report = write_report(
        out,
        title=f"{names['before']} and {names['after']} on the same questions",
        summary=verdict(comparison, names),
        tables=[comparison_table(comparison), _tasks_table(questions, runs)],
        figures=[
            Figure(
                "difference",
                "Difference in accuracy",
                draw_differences(comparison),
                "After minus before, with 95 % intervals; filled: beyond chance (categories: after correction).",
            )
        ],
        settings=settings,
    )
    return report, comparison


def comparison_table(comparison: Comparison) -> Table:
    """All questions and each category."""
    rows: list[list[Cell]] = [
        [name, *paired_cells(pair), comparison.corrected[name]] for name, pair in comparison.categories.items()
    ]
    rows.append([ALL, *paired_cells(comparison.overall), None])
    return Table(
        "comparison",
        "Accuracy before and after",
        ["category", *PAIRED_COLUMNS, "p corrected"],
        rows,
        "Difference in points with its 95 % interval (low, high). Only before, only after: questions that one alone "
        "answered better. p: two-sided, McNemar's exact test (a paired t test where scores are not 0 or 1); corrected "
        f"by Holm over the categories. Questions of one group count as one. Below {LEVEL}: more than chance.",
    )


def _tasks_table(questions: Sequence[Question], runs: Mapping[str, Run]) -> Table:
    rows: list[list[Cell]] = []
    for task in sorted({question.task for question in questions}):
        members = [question for question in questions if question.task == task]
        pair = compare_questions(members, runs["before"].scores, runs["after"].scores)
        rows.append([task, *paired_cells(pair)])
    return Table("by_task", "By task", ["task", *PAIRED_COLUMNS], rows, "p is not corrected here: a look, not a test.")


def _write_differences(out: Path, questions: Sequence[Question], runs: Mapping[str, Run]) -> None:
    """``only_before.jsonl`` and ``only_after.jsonl``: the questions that one model alone answered better."""
    for side, other in (SIDES, SIDES[::-1]):
        lines = [
            json.dumps(
                {
                    "id": q.id,
                    "category": q.category,
                    "task": q.task,
                    "image": str(q.image),
                    "question": q.question,
                    "answer": q.answer,
                    **{name: runs[name].answers[q.id] for name in SIDES},
                },
                ensure_ascii=False,
            )
            for q in questions
            if runs[side].scores[q.id] > runs[other].scores[q.id]
        ]
        path = out / f"only_{side}.jsonl"
        with write_errors(path):
            write_file(path, "".join(f"{line}\n" for line in lines).encode())


def verdict(comparison: Comparison, names: Mapping[str, str]) -> list[str]:
    """What may be said, in plain words, and what may not."""
    pair = comparison.overall
    before, after = names["before"], names["after"]
    interval = f"95 % interval {pair.low:+.1f} to {pair.high:+.1f} points, p = {_p(pair.p)}"
    numbers = f"{pair.first:.1f} % before, {pair.second:.1f} % after, on {pair.count} questions ({interval})"
    if pair.p < LEVEL:
        better, worse = (after, before) if pair.difference > 0 else (before, after)
        lines = [f"{better} is better than {worse} by {abs(pair.difference):.1f} points: {numbers}."]
    else:
        reach = max(abs(pair.low), abs(pair.high))
        lines = [
            f"No difference found between {before} and {after}: {numbers}.",
            f"With this many questions a true difference of up to about {reach:.1f} points would not show; more "
            "questions narrow the interval.",
        ]
    if len(comparison.categories) > 1:
        parts = [
            f"{name} {category.difference:+.1f} points (p = {_p(comparison.corrected[name])})"
            for name, category in comparison.categories.items()
            if comparison.corrected[name] < LEVEL
        ]
        after_correction = f"after correction for looking at {len(comparison.categories)}"
        lines.append(
            f"By category, {after_correction}: {'; '.join(parts)}."
            if parts
            else f"No category shows a difference, {after_correction} of them."
        )
    lines.append(
        f"Better answered after: {pair.only_second}, before: {pair.only_first}; see only_after.jsonl and "
        "only_before.jsonl."
    )
    if pair.first == pair.second == 0:
        lines.append("Neither answers a single question right: check that the answers are of the expected form.")
    return lines


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"


def draw_differences(comparison: Comparison) -> Any:
    """Left: both accuracies per category. Right: their difference with its interval."""
    shown = largest({name: pair.count for name, pair in comparison.categories.items()})
    pairs = {**{name: comparison.categories[name] for name in shown}, ALL: comparison.overall}
    sure = {**{name: p < LEVEL for name, p in comparison.corrected.items()}, ALL: comparison.overall.p < LEVEL}
    figure = new_figure(10, 1.5 + 0.5 * len(pairs))
    left, right = figure.subplots(1, 2, sharey=True)
    for y, (name, pair) in enumerate(pairs.items()):
        left.plot([pair.first, pair.second], [y, y], color="0.75", linewidth=2, zorder=1)
        left.scatter([pair.first], [y], color="C0", s=36, zorder=2, label="before" if y == 0 else None)
        left.scatter([pair.second], [y], color="C1", s=36, zorder=2, label="after" if y == 0 else None)
        right.errorbar(
            pair.difference,
            y,
            xerr=[[max(pair.difference - pair.low, 0)], [max(pair.high - pair.difference, 0)]],
            fmt="o",
            color="C1" if pair.difference >= 0 else "C0",
            markerfacecolor=None if sure[name] else "white",
            capsize=3,
        )
    left.set_yticks(range(len(pairs)), [f"{name} ({pair.count:,})" for name, pair in pairs.items()])
    left.set_ylim(len(pairs) - 0.5, -0.5)
    left.set_xlabel("right, %")
    left.legend(frameon=False, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1))
    right.axvline(0, color="black", linewidth=0.8)
    right.set_xlabel("difference, points")
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
        axis.axhline(len(pairs) - 1.5, color="0.8", linewidth=0.8)
    return figure
