"""The pictures of the study of layer weights."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from igva.plot import new_figure, stacked
from igva.study.paired import LEVEL, Paired, largest
from igva.study.report import Cell, Table

# Layer groups from low to high: a light-to-dark scale that survives grey print and colour blindness.
SCALE = "YlGnBu"
SHORT = 16  # characters of a group's label that need no more room: "layers 1-3" and the like


def draw_shares(table: Table, groups: Sequence[str]) -> Any:
    """A bar per row of a table of weights, one part per layer group, as the paper's figure has it."""
    from matplotlib import colormaps

    rows = _shown(table)
    figure = new_figure(9, 1.4 + 0.45 * len(rows))
    axis = figure.subplots()
    lefts = [0.0] * len(rows)
    for k, group in enumerate(groups):
        values = [float(row[2 + k] or 0) for row in rows]
        place = 0.2 + 0.65 * k / max(len(groups) - 1, 1)
        bars = axis.barh(range(len(rows)), values, left=lefts, height=0.72, color=colormaps[SCALE](place), label=group)
        texts = [f"{value:.0%}" if value >= 0.05 else "" for value in values]
        axis.bar_label(bars, texts, label_type="center", fontsize=8, color="white" if place > 0.55 else "black")
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


def draw_heatmaps(tables: Sequence[Table], groups: Sequence[str]) -> Any:
    """Tables of weights side by side; the colour says how far a mean is from that of all questions."""
    shown = [_shown(table) for table in tables]
    most = max(map(len, shown))
    ticks = list(map(stacked, groups))
    longest = max(len(line) for tick in ticks for line in tick.split("\n"))
    room = 0.04 * max(longest - SHORT, 0) + 0.15 * max(tick.count("\n") for tick in ticks)  # inches below the axis
    figure = new_figure((2.6 + 0.85 * len(groups)) * len(tables), 1.6 + 0.42 * most + room)
    axes = figure.subplots(1, len(tables), squeeze=False)[0]
    numbers = [[[float(row[2 + k] or 0) for k in range(len(groups))] for row in rows] for rows in shown]
    far = max(abs(v - base) for rows in numbers for row in rows for v, base in zip(row, rows[-1], strict=True)) or 0.01
    for axis, table, rows, kept in zip(axes, tables, numbers, shown, strict=True):
        away = [[value - base for value, base in zip(row, rows[-1], strict=True)] for row in rows]
        image = axis.imshow(away, cmap="RdBu_r", vmin=-far, vmax=far, aspect="auto")
        axis.set_yticks(range(len(rows)), [textwrap.fill(_label(row), 24) for row in kept], fontsize=8)
        axis.set_xticks(range(len(groups)), ticks, rotation=30, ha="right", fontsize=8)
        axis.set_title(table.title, fontsize=10)
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


def draw_changes(found: Mapping[str, Mapping[str, tuple[Paired, float]]]) -> Any:
    """Change of accuracy with its interval per condition and category; filled where it stands after correction."""
    from matplotlib import colormaps

    families = {
        "a group left out": [name for name in found if name.startswith("without ")],
        "one group alone": [name for name in found if name.endswith(" alone")],
    }
    families["others"] = [name for name in found if not any(name in members for members in families.values())]
    families = {title: members for title, members in families.items() if members}
    counts = {name: pair.count for name, (pair, _) in next(iter(found.values())).items()}
    categories = largest(counts)
    height = 0.62 * len(categories)
    figure = new_figure(4.6 * len(families), 1.6 + height)
    axes = figure.subplots(1, len(families), squeeze=False, sharex=True, sharey=True)[0]
    for axis, (title, members) in zip(axes, families.items(), strict=True):
        step = 0.8 / len(members)
        for number, condition in enumerate(members):
            color = colormaps[SCALE](0.35 + 0.6 * number / max(len(members) - 1, 1))
            for y, category in enumerate(categories):
                if category not in found[condition]:
                    continue
                pair, p = found[condition][category]
                axis.errorbar(
                    pair.difference,
                    y - 0.4 + step * (number + 0.5),
                    xerr=[[max(pair.difference - pair.low, 0)], [max(pair.high - pair.difference, 0)]],
                    fmt="o",
                    markersize=4.5,
                    color=color,
                    markerfacecolor=color if p < LEVEL else "white",
                    capsize=1.5,
                    linewidth=1,
                    label=condition if y == 0 else None,
                )
        for y in range(len(categories) - 1):
            axis.axhline(y + 0.5, color="0.9", linewidth=0.8)
        axis.axvline(0, color="black", linewidth=0.8)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("change in accuracy, points")
        axis.legend(fontsize=7.5, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.5 / height))
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_yticks(range(len(categories)), categories)
    axes[0].set_ylim(len(categories) - 0.5, -0.5)
    return figure


def _shown(table: Table) -> list[list[Cell]]:
    """The rows that a picture has room for; the last stands for all questions and stays."""
    kept = largest({str(row[0]): int(row[1] or 0) for row in table.rows[:-1]})
    return [row for row in table.rows[:-1] if row[0] in kept] + table.rows[-1:]


def _label(row: Sequence[Any]) -> str:
    return f"{row[0]} ({row[1]:,})"
