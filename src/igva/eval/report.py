"""Scores as a table for the terminal and as a figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from igva.eval.metrics import Graded
from igva.plot import new_figure
from igva.tables import Cell, Table

COLUMNS = ["category", "task", "accuracy", "low", "high", "chance", "n", "unparsed"]


def score_table(scores: dict[str, Any]) -> Table:
    """What ``evaluate`` gives: each category, followed by its tasks, then the means."""
    rows: list[list[Cell]] = []
    for name, entry in scores["categories"].items():
        tasks = {task: row for task, row in scores["tasks"].items() if row["category"] == name}
        if list(tasks) == [name]:  # a file without categories
            rows.append(_row("", name, entry))
            continue
        rows.append(_row(name, "", entry))
        rows += [_row("", task, row) for task, row in tasks.items()]
    across = [(task, row) for task, row in scores["tasks"].items() if row["category"] not in scores["categories"]]
    rows += [_row(row["category"], task, row) for task, row in across]
    count, unparsed = scores["questions"], scores["unparsed"]
    for what, tail in (("mean", ""), ("mean_categories", "_categories")):
        low, high = scores[f"interval{tail}"]
        name = f"mean of {tail.removeprefix('_') or 'tasks'}"
        rows.append([name, "", scores[what], low, high, scores[f"chance{tail}"], count, unparsed])
    return Table(
        "scores", "Accuracy in per cent", COLUMNS, rows, "Low and high: 95 % interval. Unparsed answers count as wrong."
    )


def _row(category: str, task: str, entry: dict[str, Any]) -> list[Cell]:
    low, high = entry["interval"]
    return [category, task, entry["accuracy"], low, high, entry["chance"], entry["questions"], entry["unparsed"]]


def answer_table(graded: Sequence[Graded]) -> Table:
    """Every answer as it came, beside the right one."""
    rows: list[list[Cell]] = [
        [
            one.question.task,
            one.question.image.name,
            " ".join(one.question.question.split()),
            one.question.answer,
            " ".join(one.prediction.split()),
            "right" if one.value == 1 else "wrong" if one.value == 0 else f"{one.value:.2f}",
        ]
        for one in graded
    ]
    return Table("answers", "Answers", ["task", "picture", "question", "answer", "given", "score"], rows)


def figure_lines(scores: dict[str, Any]) -> list[str]:
    """The figures that metrics give besides the mean, a line per task that has any."""
    return [
        f"{task}: " + ", ".join(f"{name} {value:g}" for name, value in entry["figures"].items())
        for task, entry in scores["tasks"].items()
        if entry["figures"]
    ]


def draw_scores(scores: dict[str, Any]) -> Any:
    """A bar per task, coloured by category, with its interval and a mark at chance."""
    tasks = sorted(scores["tasks"].items(), key=lambda item: (item[1]["category"], item[0]))
    figure = new_figure(7, 1.2 + 0.3 * len(tasks))
    axis = figure.subplots()
    colors = {name: f"C{number % 10}" for number, name in enumerate(sorted({e["category"] for _, e in tasks}))}
    for row, (_, entry) in enumerate(tasks):
        value, (low, high) = entry["accuracy"], entry["interval"]
        errors = [[max(0.0, value - low)], [max(0.0, high - value)]]
        axis.barh(row, value, xerr=errors, color=colors[entry["category"]], ecolor="0.3", capsize=2)
        if entry["chance"] is not None:
            axis.plot([entry["chance"]] * 2, [row - 0.4, row + 0.4], color="black", linestyle=":")
    axis.set_yticks(range(len(tasks)), [name for name, _ in tasks])
    axis.invert_yaxis()
    axis.set_xlim(0, 100)
    axis.set_xlabel("accuracy in %, 95 % interval (dotted: chance)")
    if len(colors) < len(tasks):
        handles = [axis.barh(0, 0, color=color, label=name) for name, color in colors.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize="small")
    axis.spines[["top", "right"]].set_visible(False)
    return figure
