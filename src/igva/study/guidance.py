"""Does the question guide the mixture of layers, and is that worth anything?

*Guidance*: how much of the weight moves, in points, when a question of another task is asked about the same picture.
*Worth*: what is right with a fusion's own weights minus what is right with other ones, while whoever answers still
reads the real question; positive where the weights are worth having.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from igva.eval.statistics import mean_interval
from igva.study.paired import Paired, compare_scores
from igva.study.trials import Outcome
from igva.tables import Cell, Table

ANOTHER_TASK, UNIFORM, FIXED = "another task's", "uniform", "its own mean"
OTHER_WEIGHTS = (ANOTHER_TASK, UNIFORM, FIXED)


@dataclass(frozen=True)
class Guidance:
    """Of one fusion, over all its seeds.

    Attributes:
        moved: guidance in points (0 to 100), with ``low`` and ``high``, its 95 % interval over the questions.
        worth: other weights → own compared with them, over the questions, in points; without those that the fusion
            cannot be given.
    """

    moved: float
    low: float
    high: float
    worth: dict[str, Paired]


def guidance_of(runs: Sequence[Outcome]) -> Guidance | None:
    """From the runs of one fusion, one per seed; None where it reads no question or gives no weights."""
    if any(run.moved is None or run.exchanged is None for run in runs):
        return None
    moved = _mean_over_seeds([run.moved or {} for run in runs])
    low, high = mean_interval(list(moved.values()))
    worth = {}
    for kind in OTHER_WEIGHTS:
        if all(kind in (run.exchanged or {}) for run in runs):
            other = _mean_over_seeds([(run.exchanged or {})[kind] for run in runs])
            own = _mean_over_seeds([run.scores for run in runs])
            worth[kind] = compare_scores([other[name] for name in other], [own[name] for name in other])
    return Guidance(100 * sum(moved.values()) / len(moved), 100 * low, 100 * high, worth)


def _mean_over_seeds(values: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Question id → mean, of the questions that every seed has."""
    shared = [name for name in values[0] if all(name in one for one in values)]
    return {name: sum(one[name] for one in values) / len(values) for name in shared}


def guidance_table(runs: Mapping[str, Sequence[Outcome]]) -> Table | None:
    """A row per fusion that the question guides; None where there is none."""
    rows: list[list[Cell]] = []
    for label, outcomes in runs.items():
        if (found := guidance_of(outcomes)) is None:
            continue
        row: list[Cell] = [label, round(found.moved, 1), round(found.low, 1), round(found.high, 1)]
        for kind in OTHER_WEIGHTS:
            pair = found.worth.get(kind)
            row += [None] * 4 if pair is None else [*_points(pair), float(f"{pair.p:.2g}")]
        rows.append(row)
    if not rows:
        return None
    columns = ["", "guidance", "low", "high"]
    for kind in OTHER_WEIGHTS:
        columns += [f"worth over {kind}", f"{kind}: low", f"{kind}: high", f"{kind}: p"]
    note = (
        "Points. Guidance: weight that moves when a question of another task is asked about the same picture. Worth: "
        "right with own weights minus right with other ones. Intervals and p are over questions, each averaged over "
        "the seeds."
    )
    return Table("guidance", "What the guide does, and what it is worth", columns, rows, note)


def _points(pair: Paired) -> list[Cell]:
    return [round(pair.difference, 2), round(pair.low, 2), round(pair.high, 2)]
