"""What the weights of layer groups come to: means per class of questions, what explains them and what moves them.

Each result is a dataclass; tables, sentences and pictures are made from it. Letters: ``n`` questions, ``K`` layer
groups.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from igva.data.questions import Question
from igva.eval.statistics import mean_interval
from igva.plot import LOW_TO_HIGH, new_figure, stacked
from igva.study.paired import ALL, largest
from igva.study.question_kinds import RULE
from igva.study.report import Figure
from igva.tables import Cell, Table
from igva.train.guidance import total_variation

OTHER_TASK = "a question of another task, same picture"
SAME_TASK = "another question of the same task, same picture"
OTHER_PICTURE = "another picture, same question"
KINDS = (OTHER_TASK, SAME_TASK, OTHER_PICTURE)  # of exchange
STILL = 1e-4  # a mean distance below it: the weights do not move
SHORT = 16  # characters of a group's label that need no more room: "layers 1-3" and the like


def entropy(weights: Tensor) -> Tensor:
    """``(n, K)`` → ``(n,)`` in nats, between 0 (one group has it all) and log K (all alike)."""
    return torch.special.entr(weights.double()).sum(dim=-1)


def explained_variance(weights: Tensor, labels: Sequence[str]) -> tuple[float, float]:
    """The share of the weights' variance that lies between the classes of a label (η²), summed over the groups.

    Returns:
        The share, and what labels drawn at random would give on average, ``(classes - 1) / (n - 1)``. The share is
        NaN where the weights do not vary at all.
    """
    points = weights.double()
    total = (points - points.mean(dim=0)).square().sum()
    classes = sorted(set(labels))
    between = torch.zeros((), dtype=torch.float64)
    for name in classes:
        rows = points[[label == name for label in labels]]
        between += len(rows) * (rows.mean(dim=0) - points.mean(dim=0)).square().sum()
    share = float(between / total) if total > 1e-10 * len(points) else math.nan
    return share, (len(classes) - 1) / max(len(points) - 1, 1)


@dataclass(frozen=True)
class ClassWeights:
    """The mean weights of a class of questions, to the four digits that tables, sentences and pictures show.

    Attributes:
        weights: one per layer group.
        evenness: mean entropy as a share of the largest possible; None of a single group.
        top_group: the group with the largest mean weight, in words.
    """

    name: str
    questions: int
    weights: tuple[float, ...]
    evenness: float | None
    top_group: str

    @classmethod
    def of(cls, name: str, weights: Tensor, groups: Sequence[str]) -> ClassWeights:
        """Of the weights ``(n, K)`` of its questions."""
        means = weights.double().mean(dim=0)
        relative = float(entropy(weights).mean()) / math.log(len(groups)) if len(groups) > 1 else None
        return cls(
            name=name,
            questions=len(weights),
            weights=tuple(round(value, 4) for value in means.tolist()),
            evenness=None if relative is None else round(relative, 4),
            top_group=groups[int(means.argmax())],
        )


@dataclass(frozen=True)
class Sorting:
    """The weights with the questions sorted one way, such as by category; ``overall`` is of all of them."""

    kind: str
    classes: tuple[ClassWeights, ...]
    overall: ClassWeights

    @property
    def title(self) -> str:
        """Of its table and picture."""
        return "By cluster of words" if self.kind == "cluster" else f"By {self.kind}"


_NOTES = {
    "question type": RULE,
    "cluster": "Clusters: k-means of the questions' sentence vectors, named by the words most typical of each "
    "(tf-idf).",
}


def sort_weights(kind: str, labels: Sequence[str], weights: Tensor, groups: Sequence[str]) -> Sorting:
    """Mean weights ``(n, K)`` per label, in alphabetical order of these."""
    classes = (
        ClassWeights.of(label, weights[[i for i, other in enumerate(labels) if other == label]], groups)
        for label in sorted(set(labels))
    )
    return Sorting(kind, tuple(classes), ClassWeights.of(ALL, weights, groups))


def weights_table(sorting: Sorting, groups: Sequence[str]) -> Table:
    """A row per class, and one of all questions."""
    rows: list[list[Cell]] = [
        [one.name, one.questions, *one.weights, one.evenness, one.top_group]
        for one in (*sorting.classes, sorting.overall)
    ]
    name = f"by_{sorting.kind.replace(' ', '_')}"
    columns = [sorting.kind, "questions", *groups, "entropy / log K", "top group"]
    note = "Mean weights; entropy / log K is 1 where all groups weigh alike and 0 where one has it all."
    return Table(name, sorting.title, columns, rows, f"{_NOTES.get(sorting.kind, '')} {note}".strip())


@dataclass(frozen=True)
class Explained:
    """How much of the weights' variance one way of sorting the questions accounts for, in percent to one digit.

    Attributes:
        between, within: the classes; None where the weights do not vary at all.
        chance: what classes of that number, drawn at random, would have between them on average.
    """

    kind: str
    classes: int
    between: float | None
    within: float | None
    chance: float


def explained_variances(weights: Tensor, labels: Mapping[str, Sequence[str]]) -> list[Explained]:
    """For each way of sorting the questions."""
    results = []
    for kind, values in labels.items():
        share, chance = explained_variance(weights, values)
        constant = math.isnan(share)
        results.append(
            Explained(
                kind=kind,
                classes=len(set(values)),
                between=None if constant else round(100 * share, 1),
                within=None if constant else round(100 - 100 * share, 1),
                chance=round(100 * chance, 1),
            )
        )
    return results


def variance_table(explained: Sequence[Explained]) -> Table:
    """A row per way of sorting."""
    return Table(
        "variance",
        "Variance of the weights between and within classes of questions",
        ["sorted by", "classes", "between, %", "within, %", "between by chance, %"],
        [[one.kind, one.classes, one.between, one.within, one.chance] for one in explained],
        "By chance: what classes of that number, drawn at random, would have between them on average.",
    )


@dataclass(frozen=True)
class Move:
    """How far the weights move when question or picture is exchanged, as total variation to four digits.

    Attributes:
        kind: one of ``KINDS``.
        low, high: 95 % interval of the mean.
        other_top: percent of the pairs after which another group weighs most.
    """

    kind: str
    pairs: int
    mean: float
    low: float
    high: float
    largest: float
    other_top: float


def mean_moves(moved: Mapping[str, tuple[Tensor, Tensor]]) -> list[Move]:
    """For each kind of exchange that there is; ``moved``: kind → weights before and after, ``(pairs, K)`` each."""
    moves = []
    for kind in KINDS:
        before, after = moved[kind]
        if not len(before):
            continue
        distance = total_variation(before, after)
        low, high = mean_interval(distance.tolist())
        other = before.argmax(dim=1) != after.argmax(dim=1)
        moves.append(
            Move(
                kind=kind,
                pairs=len(before),
                mean=round(float(distance.mean()), 4),
                low=round(low, 4),
                high=round(high, 4),
                largest=round(float(distance.max()), 4),
                other_top=round(100 * float(other.double().mean()), 1),
            )
        )
    return moves


def moves_table(moves: Sequence[Move]) -> Table:
    """A row per kind of exchange."""
    columns = ["exchanged for", "pairs", "mean distance", "low", "high", "largest", "another top group, %"]
    rows: list[list[Cell]] = [
        [move.kind, move.pairs, move.mean, move.low, move.high, move.largest, move.other_top] for move in moves
    ]
    note = "Distance: total variation, the share of the weight that moves to other groups; low to high: 95 % interval."
    return Table("question_swap", "What moves the weights", columns, rows, note)


def moves_by_task_table(questions: Sequence[Question], distance: Mapping[str, float]) -> Table:
    """Mean distance per task, for the question ids that were exchanged for a question of another task."""
    rows: list[list[Cell]] = []
    for task in sorted({question.task for question in questions}):
        values = [distance[q.id] for q in questions if q.task == task and q.id in distance]
        if values:
            rows.append([task, len(values), round(sum(values) / len(values), 4), round(max(values), 4)])
    columns = ["task", "pairs", "mean distance", "largest"]
    return Table("question_swap_by_task", f"Exchanged for {OTHER_TASK}", columns, rows)


# --- in words --------------------------------------------------------------------------------------------------------


def findings(
    by_category: Sorting, explained: Sequence[Explained], moves: Sequence[Move], groups: Sequence[str]
) -> list[str]:
    """One paragraph per thing that the weights show."""
    lines = [_overall(by_category.overall, groups)]
    if len(by_category.classes) > 1:
        lines.append(_leaning(by_category, groups))
    return [*lines, *_variance(explained), *_moves(moves)]


def _overall(overall: ClassWeights, groups: Sequence[str]) -> str:
    shares = ", ".join(f"{group} {_percent(w)}" for group, w in zip(groups, overall.weights, strict=True))
    even = overall.evenness
    tail = "" if even is None else f" The weights are at {_percent(even)} of the largest possible entropy."
    return f"Mean weights over {overall.questions} questions: {shares}.{tail}"


def _leaning(sorting: Sorting, groups: Sequence[str]) -> str:
    """For every class the group that stands out most from the mean of all questions."""
    mean = sorting.overall.weights
    parts = []
    for one in sorting.classes:
        own = one.weights
        k = max(range(len(groups)), key=lambda k: abs(own[k] - mean[k]))
        if abs(own[k] - mean[k]) >= 0.005:
            word = "more" if own[k] > mean[k] else "less"
            parts.append(f"{one.name} gives {word} to {groups[k]} ({_percent(own[k])} against {_percent(mean[k])})")
    if parts:
        return f"Against the mean of all questions: {'; '.join(parts)}."
    return "No category's mean weights are half a point away from those of all questions."


def _variance(explained: Sequence[Explained]) -> list[str]:
    if any(one.between is None for one in explained):
        return ["The weights are the same for every question and picture."]
    parts = [f"{one.kind} {one.between:.0f} % (by chance {one.chance:.0f} %)" for one in explained if one.classes > 1]
    if not parts:
        return []
    return [f"Share of the weights' variance between classes, by how questions are sorted: {', '.join(parts)}."]


def _moves(moves: Sequence[Move]) -> list[str]:
    mean = {move.kind: move.mean for move in moves}
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


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


# --- pictures --------------------------------------------------------------------------------------------------------


def weights_figures(sortings: Mapping[str, Sorting], weights: Tensor, groups: Sequence[str]) -> list[Figure]:
    """The pictures of the weights; ``(n, K)`` of all questions."""
    category, task = sortings["category"], sortings["task"]
    figures = [
        Figure("weights_by_category", "Weight per layer group, by category", draw_shares(category, groups)),
        Figure("weights_by_task", "Weight per layer group, by task", draw_heatmaps([task], groups)),
    ]
    words = [sortings[kind] for kind in ("question type", "cluster") if kind in sortings]
    figures.append(Figure("weights_by_words", "Weight per layer group, by words", draw_heatmaps(words, groups)))
    if len(groups) > 1:
        figures.append(
            Figure("entropy", "How evenly the groups are weighed", draw_entropy(entropy(weights), len(groups)))
        )
    return figures


def draw_shares(sorting: Sorting, groups: Sequence[str]) -> Any:
    """A bar per class of questions, one part per layer group, as the paper's figure has it."""
    from matplotlib import colormaps

    rows = _shown(sorting)
    figure = new_figure(9, 1.4 + 0.45 * len(rows))
    axis = figure.subplots()
    lefts = [0.0] * len(rows)
    for k, group in enumerate(groups):
        values = [row.weights[k] for row in rows]
        shade = 0.2 + 0.65 * k / max(len(groups) - 1, 1)
        bars = axis.barh(
            range(len(rows)), values, left=lefts, height=0.72, color=colormaps[LOW_TO_HIGH](shade), label=group
        )
        texts = [f"{value:.0%}" if value >= 0.05 else "" for value in values]
        axis.bar_label(bars, texts, label_type="center", fontsize=8, color="white" if shade > 0.55 else "black")
        lefts = [left + value for left, value in zip(lefts, values, strict=True)]
    axis.set_yticks(range(len(rows)), [_label(row) for row in rows])
    axis.invert_yaxis()
    axis.set_xlim(0, 1)
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axis.set_xlabel("mean weight")
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(axis="y", length=0)
    columns = 6 if max(map(len, groups)) <= SHORT else 2
    figure.legend(
        *axis.get_legend_handles_labels(), loc="outside upper center", ncols=min(len(groups), columns), frameon=False
    )
    return figure


LEAST_RANGE = 0.05  # of the colours: less than five points of weight must look like little


def draw_heatmaps(sortings: Sequence[Sorting], groups: Sequence[str]) -> Any:
    """Ways to sort the questions side by side; the colour says how far a mean is from that of all questions."""
    shown = [_shown(sorting) for sorting in sortings]
    most = max(map(len, shown))
    ticks = list(map(stacked, groups))
    longest = max(len(line) for tick in ticks for line in tick.split("\n"))
    room = 0.04 * max(longest - SHORT, 0) + 0.15 * max(tick.count("\n") for tick in ticks)  # inches below the axis
    figure = new_figure((2.6 + 0.85 * len(groups)) * len(sortings), 1.6 + 0.42 * most + room)
    axes = figure.subplots(1, len(sortings), squeeze=False)[0]
    numbers = [[row.weights for row in rows] for rows in shown]
    differences = [abs(v - base) for rows in numbers for row in rows for v, base in zip(row, rows[-1], strict=True)]
    far = max(*differences, LEAST_RANGE)
    for axis, sorting, rows, classes in zip(axes, sortings, numbers, shown, strict=True):
        away = [[value - base for value, base in zip(row, rows[-1], strict=True)] for row in rows]
        image = axis.imshow(away, cmap="RdBu_r", vmin=-far, vmax=far, aspect="auto")
        axis.set_yticks(range(len(rows)), [textwrap.fill(_label(one), 24) for one in classes], fontsize=8)
        axis.set_xticks(range(len(groups)), ticks, rotation=30, ha="right", fontsize=8)
        axis.set_title(sorting.title, fontsize=10)
        axis.tick_params(length=0)
        for y, row in enumerate(rows):
            for x, value in enumerate(row):
                strong = abs(away[y][x]) > 0.6 * far
                axis.text(
                    x,
                    y,
                    f"{value:.2f}",
                    ha="center",
                    va="center",
                    fontsize=8,
                    color="white" if strong else "black",
                )
    figure.colorbar(image, ax=list(axes), label="above or below the mean of all", shrink=0.8, pad=0.01)
    return figure


def draw_entropy(entropies: Tensor, groups: int) -> Any:
    """How evenly the weights are spread, question by question; dotted: all groups alike."""
    figure = new_figure(7, 3.2)
    axis = figure.subplots()
    axis.hist(entropies.tolist(), bins=40, color="C0")
    mean = float(entropies.mean())
    axis.axvline(mean, color="black", linewidth=1, label=f"mean {mean:.3f}")
    axis.axvline(
        math.log(groups),
        color="black",
        linewidth=1,
        linestyle=":",
        label=f"all alike, log {groups} = {math.log(groups):.3f}",
    )
    axis.set_xlabel("entropy of the weights, nats")
    axis.set_ylabel("questions")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, loc="upper left")
    return figure


def _shown(sorting: Sorting) -> list[ClassWeights]:
    """The classes that a picture has room for, and last what stands for all questions."""
    kept = largest({one.name: one.questions for one in sorting.classes})
    return [*(one for one in sorting.classes if one.name in kept), sorting.overall]


def _label(one: ClassWeights) -> str:
    return f"{one.name} ({one.questions:,})"
