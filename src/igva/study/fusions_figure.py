"""The picture of a fusion study: bars per category, one per fusion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from igva.plot import new_figure
from igva.study.items import Item
from igva.study.standings import ids_by, standing
from igva.study.trials import Outcome

LONGEST_LABEL = 30  # letters; longer ones do not fit side by side


def draw_fusions(runs: dict[str, list[Outcome]], test: Sequence[Item]) -> Any:
    """A group of bars per category and one for the mean, with standard errors over the seeds."""
    groups = ids_by(test, "category")
    table = {label: standing(outcomes, groups) for label, outcomes in runs.items()}
    names = [*groups, "mean"]
    figure = new_figure(13, 5)
    axis = figure.subplots()
    width = 0.84 / len(table)
    for number, (label, row) in enumerate(table.items()):
        places = [place - 0.42 + (number + 0.5) * width for place in range(len(names))]
        errors = [math.nan if row[name][1] is None else row[name][1] for name in names]  # None: of one seed
        axis.bar(
            places,
            [row[name][0] for name in names],
            width * 0.92,
            yerr=errors,
            capsize=1.5,
            label=label,
            color=f"C{number}",
            error_kw={"linewidth": 0.8},
        )
    axis.set_xticks(range(len(names)), names)
    lowest = min(row[name][0] for row in table.values() for name in names)
    axis.set_ylim(max(0, lowest - 12))
    axis.set_ylabel("right, %" + ("" if lowest < 12 else " (the axis does not start at zero)"))
    axis.spines[["top", "right"]].set_visible(False)
    columns = 4 if max(map(len, table)) <= LONGEST_LABEL else 1
    figure.legend(fontsize=8, frameon=False, ncols=columns, loc="outside upper left")
    return figure
