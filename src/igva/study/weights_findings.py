"""What the study of layer weights found, in words; every number comes from its tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from igva.study.paired import ALL, LEVEL, Paired
from igva.study.report import Table
from igva.study.swaps import OTHER_PICTURE, OTHER_TASK, SAME_TASK

Changes = Mapping[str, Mapping[str, tuple[Paired, float]]]
STILL = 1e-4  # a mean distance below it: the weights do not move


def findings(
    tables: Mapping[str, Table], variance: Table, swapped: Table, changes: Changes | None, groups: Sequence[str]
) -> list[str]:
    """One paragraph per thing found."""
    lines = [_overall(tables["category"], groups)]
    if len(tables["category"].rows) > 2:
        lines += _leaning(tables["category"], groups)
    lines += [*_variance(variance), *_moves(swapped)]
    if changes is not None:
        lines += _changes(changes)
    return lines


def _overall(table: Table, groups: Sequence[str]) -> str:
    total = table.rows[-1]
    shares = ", ".join(f"{group} {_percent(total[2 + k])}" for k, group in enumerate(groups))
    even = total[2 + len(groups)]
    tail = "" if even is None else f" The weights are at {_percent(even)} of the largest possible entropy."
    return f"Mean weights over {total[1]} questions: {shares}.{tail}"


def _leaning(table: Table, groups: Sequence[str]) -> list[str]:
    """For every category the group that stands out most from the mean of all questions."""
    total = [_number(value) for value in table.rows[-1][2 : 2 + len(groups)]]
    parts = []
    for row in table.rows[:-1]:
        values = [_number(value) for value in row[2 : 2 + len(groups)]]
        k = max(range(len(groups)), key=lambda k: abs(values[k] - total[k]))
        if abs(values[k] - total[k]) >= 0.005:
            word = "more" if values[k] > total[k] else "less"
            parts.append(f"{row[0]} gives {word} to {groups[k]} ({_percent(values[k])} against {_percent(total[k])})")
    return (
        [f"Against the mean of all questions: {'; '.join(parts)}."]
        if parts
        else ["No category's mean weights are half a point away from those of all questions."]
    )


def _variance(table: Table) -> list[str]:
    if any(row[2] is None for row in table.rows):
        return ["The weights are the same for every question and picture."]
    parts = [
        f"{row[0]} {_number(row[2]):.0f} % (by chance {_number(row[4]):.0f} %)"
        for row in table.rows
        if _number(row[1]) > 1
    ]
    return (
        [f"Share of the weights' variance between classes, by how questions are sorted: {', '.join(parts)}."]
        if (parts)
        else []
    )


def _moves(table: Table) -> list[str]:
    mean = {row[0]: _number(row[2]) for row in table.rows}
    if not mean:
        return ["There is a single question and picture: nothing could be exchanged."]
    said = [f"{kind}: {_percent(far)} of the weight moves" for kind, far in mean.items()]
    lines = [f"On average, exchanged for {'; '.join(said)}."]
    question = mean.get(OTHER_TASK, mean.get(SAME_TASK, 0.0))
    picture = mean.get(OTHER_PICTURE, 0.0)
    if max(question, picture) < STILL:
        lines.append("Neither the question nor the picture moves the weights: the fusion does not adapt.")
    elif min(question, picture) < STILL:
        more, less = ("question", "picture") if question > picture else ("picture", "question")
        lines.append(f"The {more} moves the weights, the {less} does not.")
    elif question >= picture:
        lines.append(f"The question moves the weights {question / picture:.1f} times as far as the picture.")
    else:
        lines.append(f"The picture moves the weights {picture / question:.1f} times as far as the question.")
    return lines


def _changes(changes: Changes) -> list[str]:
    """Every condition over all questions, then the categories where something stands after correction."""
    first = next(iter(changes.values()))[ALL][0]
    lines = [f"As it is, the model answers {first.first:.1f} % of {first.count} questions right."]
    harm: list[str] = []
    gain: list[str] = []
    same: list[str] = []
    for condition, rows in changes.items():
        pair, p = rows[ALL]
        text = f"{condition}: {pair.difference:+.1f} points"
        (same if p >= LEVEL else harm if pair.difference < 0 else gain).append(text)
    if harm:
        lines.append(f"It is worse with other weights: {'; '.join(harm)}.")
    if gain:
        lines.append(f"It is better with other weights: {'; '.join(gain)}.")
    if same:
        lines.append(f"No difference beyond chance was found: {'; '.join(same)}.")
    where = [
        f"{name}, {condition}: {pair.difference:+.1f}"
        for condition, rows in changes.items()
        for name, (pair, p) in rows.items()
        if name != ALL and p < LEVEL
    ]
    if where:
        lines.append(f"By category (points, p below {LEVEL} after correction): {'; '.join(where)}.")
    return lines


def _number(value: Any) -> float:
    return float(value)


def _percent(share: Any) -> str:
    return f"{100 * float(share):.1f} %"
