"""Which layer of a vision encoder helps with what: one readout, or one whole model, per layer.

The paper trains a model per layer and compares them (arXiv 2501.08443, section 3). That is the full form; the readout
form asks the same of frozen features in minutes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from igva.data.questions import Question
from igva.errors import UserError
from igva.layer_names import layer_label
from igva.model.fusion_base import FusionDims
from igva.model.vision_layers import resolve_layer
from igva.plot import new_figure
from igva.study.paired import compare_outcomes
from igva.study.readout import Material, ReadoutSettings, ReadoutTrial, Trial
from igva.study.report import Figure, write_report
from igva.study.trials import Job, Outcome, Trials, Variant, by_label, ids_by, scores_table, standing
from igva.tables import Table

WIDE = 1.96  # standard errors to the side of a 95 % interval
BLIND = "blind"
LONGEST_NUMBER = 4  # characters; names of layers are longer and stand upright
Run = Callable[[Variant, int], Outcome]


def parse_layers(text: str, num_layers: int) -> list[int]:
    """``1-4,8,-2`` → layer numbers, ascending.

    Raises:
        UserError: not a number, or a layer that does not exist.
    """
    layers: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().rpartition("-") if not part.strip().startswith("-") else ("", "", part)
        try:
            low, high = (int(first), int(last)) if dash else (int(part), int(part))
            layers |= {resolve_layer(layer, num_layers) for layer in range(low, high + 1)}
        except ValueError as error:
            reason = str(error) if "exist" in str(error) else f"{part!r} is neither a number nor a range such as 1-6"
            raise UserError(f"--layers {text}: {reason}") from error
    if not layers:
        raise UserError(f"--layers {text}: names no layer")
    return sorted(layers)


def layer_variant(layer: int) -> Variant:
    """One layer alone."""
    return Variant(layer_label(layer), "single", {"layer": layer})


def readout_run(material: Material, settings: ReadoutSettings, dims: FusionDims, per_task: bool) -> Run:
    """Trains readouts on one layer; per task, or one for all tasks."""

    def run(variant: Variant, seed: int) -> Outcome:
        def fresh() -> ReadoutTrial:
            return ReadoutTrial(variant.build(dims), material, settings, seed=seed, blind=variant.label == BLIND)

        warm = fresh()
        cells = warm.warm_up(warm.fusion) if settings.warm_up_steps else None
        scores: dict[str, float] = {}
        trials: list[Trial] = []
        for task in sorted({question.task for question in material.test}) if per_task else [None]:
            train, test = (_of(questions, task) for questions in (material.train, material.test))
            trial = fresh()
            trial.readout.load_state_dict(warm.readout.state_dict())
            trials.append(trial.run(train, test, f"{variant.label} {task or ''}".strip()))
            scores |= dict(zip([question.id for question in test], map(float, trials[-1].right), strict=True))
        return Outcome(
            label=variant.label,
            seed=seed,
            scores=scores,
            weights=None,
            loss=sum(trial.loss for trial in trials) / len(trials),
            seconds=round(sum(trial.seconds for trial in trials), 1),
            step_ms=max(trial.step_ms for trial in trials),
            parameters=0,
            cells_right=cells,
        )

    return run


def check_tasks(train: Sequence[Question], test: Sequence[Question]) -> None:
    """Raise ``UserError`` where a readout per task would have nothing to learn from."""
    if missing := sorted({question.task for question in test} - {question.task for question in train}):
        raise UserError(
            f"--train has no question of task {missing[0]!r}, which --test has: name its tasks as --test does, or give "
            "--shared for one readout of all"
        )


def _of(questions: Sequence[Question], task: str | None) -> list[Question]:
    return [question for question in questions if task in (None, question.task)]


def study_layers(
    run: Run,
    layers: Sequence[int],
    test: Sequence[Question],
    out: Path,
    *,
    seeds: int,
    blind: bool,
    names: Sequence[str] | None = None,
    settings: dict[str, Any],
) -> Path:
    """Run what is missing, write tables, figure and report; returns the report's path.

    Args:
        run: trains and scores one layer.
        blind: also run with every picture's features at zero.
        names: of all layers of the tower, beside the numbers in what is written; None: they have none.
        settings: what all runs share, for the report and to refuse a folder of another study.
    """
    variants = [layer_variant(layer) for layer in layers]
    if blind:
        variants.append(dataclasses.replace(layer_variant(layers[-1]), label=BLIND))
    trials = Trials(out, settings)
    jobs = [Job(v.label, seed, partial(run, v, seed)) for seed in range(seeds) for v in variants]
    shown = {layer_label(layer): layer_label(layer, names) for layer in layers}
    runs = {shown.get(label, label): outcomes for label, outcomes in by_label(trials.do(jobs, "layers")).items()}
    tables = [scores_table(runs, test, kind) for kind in ("category", "task")]
    shares = normalised(runs, test)
    tables.insert(1, _normalised_table(shares))
    return write_report(
        out,
        title="What each layer contributes",
        summary=findings(runs, test),
        tables=tables,
        figures=[Figure("layers", "Accuracy of each layer, by category", draw_layers(runs, test, shares))],
        settings=settings,
    )


def normalised(runs: dict[str, list[Outcome]], test: Sequence[Question]) -> dict[str, dict[str, float]]:
    """Layer → category → accuracy as a share of the best layer's, as the paper's figure has it."""
    groups = ids_by(test, "category")
    table = {label: standing(outcomes, groups) for label, outcomes in runs.items() if label != BLIND}
    best = {name: max(row[name][0] for row in table.values()) or 1.0 for name in groups}
    return {label: {name: row[name][0] / best[name] for name in groups} for label, row in table.items()}


def _normalised_table(shares: dict[str, dict[str, float]]) -> Table:
    names = list(next(iter(shares.values())))
    rows: list[list[str | int | float | None]] = [
        [label, *(round(row[name], 3) for name in names)] for label, row in shares.items()
    ]
    return Table("normalised", "Each layer as a share of the best", ["layer", *names], rows, "1 is the best layer.")


def findings(runs: dict[str, list[Outcome]], test: Sequence[Question]) -> list[str]:
    """The best layer of each category in words, how far ahead it is of the last, and whether that may be chance."""
    groups = ids_by(test, "category")
    seen = {label: standing(outcomes, groups) for label, outcomes in runs.items() if label != BLIND}
    last = list(seen)[-1]
    lines = []
    for name in groups:
        best = max(seen, key=lambda label: seen[label][name][0])
        tail = ""
        if best != last:
            ahead, error, _ = compare_outcomes(runs[last], runs[best], groups[name])
            low, high = ahead - WIDE * error, ahead + WIDE * error
            tail = f", {ahead:.1f} points above {last} (95 %: {low:.1f} to {high:.1f})"
            tail += "" if low > 0 else ", which may be chance"
        lines.append(f"{name}: best is {best} with {seen[best][name][0]:.1f} %{tail} ({len(groups[name])} questions).")
    return lines


def draw_layers(runs: dict[str, list[Outcome]], test: Sequence[Question], of_best: dict[str, dict[str, float]]) -> Any:
    """Left: accuracy over layers with standard errors, without the picture dotted. Right: shares of the best layer."""
    groups = ids_by(test, "category")
    table = {label: standing(outcomes, groups) for label, outcomes in runs.items()}
    labels = [label for label in table if label != BLIND]
    positions, ticks = range(len(labels)), [label.removeprefix("layer ") for label in labels]
    longest = max(map(len, ticks))
    upright = {"rotation": 90, "fontsize": 8} if longest > LONGEST_NUMBER else {}
    figure = new_figure(13, 5 + 0.06 * longest * bool(upright))
    lines, heat = figure.subplots(1, 2, width_ratios=(3, 2))
    for number, name in enumerate(groups):
        color = f"C{number}"
        means = [table[label][name][0] for label in labels]
        errors = [table[label][name][1] or 0 for label in labels]
        lines.errorbar(positions, means, errors, color=color, marker="o", markersize=4, capsize=2, label=name)
        if BLIND in table:
            lines.axhline(table[BLIND][name][0], color=color, linestyle=":", linewidth=0.8)
    lines.set_xticks(positions, ticks, **upright)
    lines.set_xlabel("layer of the vision encoder")
    lines.set_ylabel("right, %" + (" (dotted: without the picture)" if BLIND in table else ""))
    lines.spines[["top", "right"]].set_visible(False)
    lines.legend(fontsize=8, frameon=False, ncols=2)
    shares = [[of_best[label][name] for label in labels] for name in groups]
    heat.imshow(shares, aspect="auto", cmap="viridis")
    heat.set_xticks(positions, ticks, **upright)
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
