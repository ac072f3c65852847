"""The tables of the study of layer weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from igva.eval.questions import Question
from igva.eval.statistics import mean_interval
from igva.study.counterfactuals import AS_IS
from igva.study.paired import ALL, PAIRED_COLUMNS, Paired, by_category, compare_questions, paired_cells
from igva.study.report import Cell, Table
from igva.study.standings import holm
from igva.study.swaps import KINDS
from igva.study.weights import entropy, explained_variance, total_variation


def weights_table(
    name: str, title: str, column: str, labels: Sequence[str], weights: Tensor, groups: Sequence[str], note: str = ""
) -> Table:
    """Mean weights ``(n, K)`` per label, most questions first where the labels are clusters, else alphabetical."""
    rows = [
        _weights_row(label, weights[[i for i, other in enumerate(labels) if other == label]], groups)
        for label in dict.fromkeys(sorted(labels))
    ]
    rows.append(_weights_row(ALL, weights, groups))
    columns = [column, "questions", *groups, "entropy / log K", "top group"]
    note = f"{note} Mean weights; entropy / log K is 1 where all groups weigh alike and 0 where one has it all.".strip()
    return Table(name, title, columns, rows, note)


def _weights_row(label: str, weights: Tensor, groups: Sequence[str]) -> list[Cell]:
    means = weights.double().mean(dim=0)
    relative = float(entropy(weights).mean()) / math.log(len(groups)) if len(groups) > 1 else None
    rounded: list[Cell] = [round(value, 4) for value in means.tolist()]
    return [
        label,
        len(weights),
        *rounded,
        None if relative is None else round(relative, 4),
        groups[int(means.argmax())],
    ]


def variance_table(weights: Tensor, labels: Mapping[str, Sequence[str]]) -> Table:
    """How much of the weights' variance each way of sorting the questions accounts for."""
    rows: list[list[Cell]] = []
    for name, values in labels.items():
        share, chance = explained_variance(weights, values)
        between = None if math.isnan(share) else round(100 * share, 1)
        within = None if math.isnan(share) else round(100 - 100 * share, 1)
        rows.append([name, len(set(values)), between, within, round(100 * chance, 1)])
    return Table(
        "variance",
        "Variance of the weights between and within classes of questions",
        ["sorted by", "classes", "between, %", "within, %", "between by chance, %"],
        rows,
        "By chance: what classes of that number, drawn at random, would have between them on average.",
    )


def swap_table(moved: Mapping[str, tuple[Tensor, Tensor]]) -> Table:
    """How far the weights move when question or picture is exchanged.

    Args:
        moved: kind → weights before and after, ``(pairs, K)`` each.
    """
    rows: list[list[Cell]] = []
    for kind in KINDS:
        before, after = moved[kind]
        if not len(before):
            continue
        distance = total_variation(before, after)
        low, high = mean_interval(distance.tolist())
        other = before.argmax(dim=1) != after.argmax(dim=1)
        rows.append(
            [
                kind,
                len(before),
                round(float(distance.mean()), 4),
                round(low, 4),
                round(high, 4),
                round(float(distance.max()), 4),
                round(100 * float(other.double().mean()), 1),
            ]
        )
    columns = ["exchanged for", "pairs", "mean distance", "low", "high", "largest", "another top group, %"]
    note = "Distance: total variation, the share of the weight that moves to other groups; low to high: 95 % interval."
    return Table("question_swap", "What moves the weights", columns, rows, note)


def swap_by_task_table(questions: Sequence[Question], distance: Mapping[str, float], other_task: str) -> Table:
    """Mean distance per task, for the question ids that have a partner."""
    rows: list[list[Cell]] = []
    for task in sorted({question.task for question in questions}):
        values = [distance[q.id] for q in questions if q.task == task and q.id in distance]
        if values:
            rows.append([task, len(values), round(sum(values) / len(values), 4), round(max(values), 4)])
    columns = ["task", "pairs", "mean distance", "largest"]
    return Table("question_swap_by_task", f"Exchanged for {other_task}", columns, rows)


def answers_changed_table(questions: Sequence[Question], answers: Mapping[str, Mapping[str, str]]) -> Table:
    """How often the words of the answer differ from those given as it is."""
    rows: list[list[Cell]] = []
    own = answers[AS_IS]
    groups = {**by_category(questions), ALL: list(questions)}
    for name, texts in answers.items():
        if name == AS_IS or not texts:
            continue
        row: list[Cell] = [name]
        for members in groups.values():
            known = [q.id for q in members if q.id in texts]
            share = sum(texts[i] != own[i] for i in known) / len(known) if known else None
            row.append(None if share is None else round(100 * share, 1))
        rows.append(row)
    return Table(
        "answers_changed", "Answers whose words change, %", ["weights", *groups], rows, "Against the model as it is."
    )


def counterfactual_table(
    questions: Sequence[Question], scores: Mapping[str, Mapping[str, float]]
) -> tuple[Table, dict[str, dict[str, tuple[Paired, float]]]]:
    """Accuracy under each condition against the model as it is.

    Returns:
        The table, and condition → category (and ``all``) → comparison and corrected p.
    """
    found: dict[tuple[str, str], Paired] = {}
    for condition, values in scores.items():
        if condition == AS_IS or not values:
            continue
        known = [question for question in questions if question.id in values]
        for name, members in {ALL: known, **by_category(known)}.items():
            found[condition, name] = compare_questions(members, scores[AS_IS], values)
    corrected: dict[str, float] = {}
    for overall in (True, False):  # two families: over all questions, and within categories
        corrected |= holm({f"{c}\n{n}": pair.p for (c, n), pair in found.items() if (n == ALL) == overall})
    rows: list[list[Cell]] = []
    nested: dict[str, dict[str, tuple[Paired, float]]] = {}
    for (condition, name), pair in found.items():
        p = corrected[f"{condition}\n{name}"]
        nested.setdefault(condition, {})[name] = (pair, p)
        rows.append([condition, name, *paired_cells(pair), p])
    return (
        Table(
            "counterfactuals",
            "Accuracy with other weights",
            ["weights", "category", *PAIRED_COLUMNS, "p corrected"],
            rows,
            "Before: as the model is; after: with other weights. Difference in points with its 95 % interval (low to "
            "high); one without width: no question's score changed. p: McNemar's exact test (a paired t test where "
            "scores are not 0 or 1), corrected by Holm over the rows of all questions, and over those of categories.",
        ),
        nested,
    )
