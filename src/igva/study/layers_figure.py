"""The picture of a layer study: a line per category over the layers, and the same as a heat map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from igva.plot import new_figure
from igva.study.items import Item
from igva.study.standings import ids_by, standing
from igva.study.trials import Outcome

LONGEST_NUMBER = 4  # characters; names of layers are longer and stand upright


def draw_layers(runs: dict[str, list[Outcome]], test: Sequence[Item], blind: str = "blind") -> Any:
    """Left: accuracy over layers with standard errors, the blind readout dashed. Right: shares of the best layer."""
    groups = ids_by(test, "category")
    table = {label: standing(outcomes, groups) for label, outcomes in runs.items()}
    labels = [label for label in table if label != blind]
    places, ticks = range(len(labels)), [label.removeprefix("layer ") for label in labels]
    longest = max(map(len, ticks))
    upright = {"rotation": 90, "fontsize": 8} if longest > LONGEST_NUMBER else {}
    figure = new_figure(13, 5 + 0.06 * longest * bool(upright))
    lines, heat = figure.subplots(1, 2, width_ratios=(3, 2))
    for number, name in enumerate(groups):
        color = f"C{number}"
        means = [table[label][name][0] for label in labels]
        errors = [table[label][name][1] or 0 for label in labels]
        lines.errorbar(places, means, errors, color=color, marker="o", markersize=4, capsize=2, label=name)
        if blind in table:
            lines.axhline(table[blind][name][0], color=color, linestyle=":", linewidth=0.8)
    lines.set_xticks(places, ticks, **upright)
    lines.set_xlabel("layer of the vision encoder")
    lines.set_ylabel("right, %" + (" (dotted: without the picture)" if blind in table else ""))
    lines.spines[["top", "right"]].set_visible(False)
    lines.legend(fontsize=8, frameon=False, ncols=2)
    best = {name: max(table[label][name][0] for label in labels) or 1.0 for name in groups}
    shares = [[table[label][name][0] / best[name] for label in labels] for name in groups]
    heat.imshow(shares, aspect="auto", cmap="viridis")
    heat.set_xticks(places, ticks, **upright)
    heat.set_yticks(range(len(groups)), list(groups))
    heat.set_title("share of the best layer", fontsize=10)
    for row, values in enumerate(shares):
        for column, value in enumerate(values):
            dark = value < min(map(min, shares)) + 0.6 * (1 - min(map(min, shares)))
            heat.text(
                column,
                row,
                f"{value:.2f}"[1:] if value < 0.995 else "1",
                ha="center",
                va="center",
                fontsize=6.5,
                color="white" if dark else "black",
            )
    return figure
