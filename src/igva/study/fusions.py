"""Fusions under identical conditions: one recipe, the same data, the same seeds, and what each costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from igva.data.questions import Question
from igva.errors import UserError
from igva.layer_names import group_label
from igva.model.fusion_base import FusionDims
from igva.model.fusions import fusion_class
from igva.plot import new_figure
from igva.study.guidance import guidance_table
from igva.study.paired import LEVEL, compare_outcomes, holm
from igva.study.readout import Material, ReadoutSettings, ReadoutTrial
from igva.study.report import Figure, write_report
from igva.study.trials import Job, Outcome, Trials, Variant, align_variant, by_label, ids_by, scores_table, standing
from igva.tables import Cell, Table

Run = Callable[[Variant, int], Outcome]
LONGEST_LABEL = 30  # letters; longer ones do not fit side by side in the picture


def readout_run(material: Material, settings: ReadoutSettings, dims: FusionDims) -> Run:
    """Trains a fusion together with one readout for all tasks, which is given the question.

    A readout per task would know what is asked before it has read the question, and a fusion guided by the question
    could add nothing.
    """

    def run(variant: Variant, seed: int) -> Outcome:
        trial = ReadoutTrial(variant.build(dims), material, settings, seed=seed)
        cells = trial.warm_up(align_variant(variant, dims).build(dims)) if settings.warm_up_steps else None
        result = trial.run(material.train, material.test, f"{variant.label} seed {seed}")
        exchange = trial.exchange(material.test)
        return Outcome(
            label=variant.label,
            seed=seed,
            scores=dict(zip([question.id for question in material.test], map(float, result.right), strict=True)),
            weights=result.weights,
            loss=result.loss,
            seconds=result.seconds,
            step_ms=result.step_ms,
            parameters=result.parameters,
            cells_right=cells,
            moved=exchange.moved if exchange else None,
            exchanged=exchange.scores if exchange else None,
        )

    return run


def check_measurable(variants: Sequence[Variant]) -> None:
    """Raise ``UserError`` for a fusion whose features a readout would not see."""
    for variant in variants:
        if fusion_class(variant.fusion).injects:
            raise UserError(
                f"{variant.label} adds its layers inside the language model, which a readout does not have: leave it "
                "out, or give --recipe"
            )


def study_fusions(
    run: Run,
    variants: Sequence[Variant],
    test: Sequence[Question],
    out: Path,
    *,
    dims: FusionDims,
    seeds: int,
    reference: str,
    names: Sequence[str] | None = None,
    settings: dict[str, Any],
) -> Path:
    """Run what is missing, write tables, figures and report; returns the report's path.

    Args:
        run: trains and scores one variant with one seed.
        reference: the label every other one is compared with, question by question.
        names: of the tower's layers, beside the weights of their groups; None: they have none.
        settings: what all runs share, for the report and to refuse a folder of another study.
    """
    trials = Trials(out, settings)
    # Seed by seed: a study that is stopped has compared everything as far as it got.
    jobs = [Job(v.label, seed, partial(run, v, seed)) for seed in range(seeds) for v in variants]
    runs = by_label(trials.do(jobs, "fusions"))
    compared = against_reference(runs, [question.id for question in test], reference)
    tables = [
        scores_table(runs, test, "category"),
        paired_table(compared, reference, len(test), seeds),
        cost_table(runs, variants, dims),
        scores_table(runs, test, "task"),
    ]
    if guided := guidance_table(runs):
        tables.insert(2, guided)
    if weights := weights_table(runs, variants, dims, names):
        tables.append(weights)
    return write_report(
        out,
        title="Fusions under identical conditions",
        summary=findings(runs, test, compared, reference),
        tables=tables,
        figures=[Figure("fusions", "Accuracy per category", draw_fusions(runs, test))],
        settings={**settings, "seeds": seeds, "reference": reference},
    )


@dataclass(frozen=True)
class Against:
    """A variant against the reference on the same questions, in points.

    Attributes:
        error: standard error of the difference, over the questions.
        p: two-sided, of a paired t test; ``corrected`` for the number of variants (Holm).
        seeds_ahead: on how many seeds its mean is above the reference's.
    """

    label: str
    difference: float
    error: float
    p: float
    corrected: float
    seeds_ahead: int


def against_reference(runs: dict[str, list[Outcome]], ids: Sequence[str], reference: str) -> list[Against]:
    """Every variant but the reference, compared with it on these questions."""
    compared = {label: compare_outcomes(runs[reference], runs[label], ids) for label in runs if label != reference}
    corrected = holm({label: p for label, (_, _, p) in compared.items()})

    def seeds_ahead(label: str) -> int:
        pairs = zip(runs[reference], runs[label], strict=True)
        return sum(sum(b.scores[name] - a.scores[name] for name in ids) > 0 for a, b in pairs)

    return [
        Against(label, difference, error, p, corrected[label], seeds_ahead(label))
        for label, (difference, error, p) in compared.items()
    ]


def paired_table(compared: Sequence[Against], reference: str, questions: int, seeds: int) -> Table:
    """Every variant against the reference."""
    rows: list[list[Cell]] = [
        [
            one.label,
            round(one.difference, 2),
            round(one.error, 2),
            float(f"{one.p:.2g}"),
            float(f"{one.corrected:.2g}"),
            f"{one.seeds_ahead} of {seeds}",
        ]
        for one in compared
    ]
    note = (
        f"Points above {reference} over all {questions} questions, each question's score averaged over the seeds; "
        "± and p (paired t, two-sided) are over questions; Holm's correction is for the number of rows."
    )
    columns = ["", "difference", "±", "p", "p corrected", "seeds ahead"]
    return Table("paired", f"Against {reference}", columns, rows, note)


def cost_table(runs: dict[str, list[Outcome]], variants: Sequence[Variant], dims: FusionDims) -> Table:
    """What each variant is and costs, on the tower of the study."""
    rows: list[list[Cell]] = []
    for variant in variants:
        outcomes = runs[variant.label]
        steps = sorted(o.step_ms for o in outcomes if o.step_ms is not None)
        losses = [o.loss for o in outcomes if o.loss is not None]
        rows.append(
            [
                variant.label,
                "yes" if fusion_class(variant.fusion).needs_instruction else "no",
                variant.build(dims).num_tokens,
                outcomes[0].parameters,
                steps[len(steps) // 2] if steps else None,
                round(sum(o.seconds for o in outcomes) / len(outcomes), 1),
                round(sum(losses) / len(losses), 4) if losses else None,
            ]
        )
    columns = [
        "",
        "reads the question",
        "visual tokens",
        "parameters",
        "step, ms (median)",
        "training, s",
        "training loss",
    ]
    return Table("cost", "What each costs", columns, rows, "Times are of the machine the study ran on.")


def weights_table(
    runs: dict[str, list[Outcome]], variants: Sequence[Variant], dims: FusionDims, names: Sequence[str] | None = None
) -> Table | None:
    """How each variant that weighs layer groups distributed its weight, per category (mean over seeds)."""
    rows: list[list[Cell]] = []
    groups = {} if names is None else {variant.label: variant.build(dims).layer_groups for variant in variants}
    for label, outcomes in runs.items():
        tables = [outcome.weights for outcome in outcomes if outcome.weights]
        for category in tables[0] if tables else ():
            columns = zip(*(table[category] for table in tables), strict=True)
            means = [f"{sum(values) / len(values):.2f}" for values in columns]
            if names is None:
                rows.append([label, category, " ".join(means)])
                continue
            named = (f"{group_label(group, names)} {mean}" for group, mean in zip(groups[label], means, strict=True))
            rows.append([label, category, "; ".join(named)])
    if not rows:
        return None
    return Table("weights", "Layer weights per category", ["", "category", "mean weight of each layer group"], rows)


def findings(
    runs: dict[str, list[Outcome]], test: Sequence[Question], compared: Sequence[Against], reference: str
) -> list[str]:
    """Who is ahead, by how much, and what cannot be told apart."""
    groups = ids_by(test, "category")
    means = {label: standing(outcomes, groups)["mean"] for label, outcomes in runs.items()}
    order = sorted(means, key=lambda label: -means[label][0])
    lines = ["Mean over categories: " + "; ".join(_with_error(label, *means[label]) for label in order) + "."]
    different = [one for one in compared if one.corrected < LEVEL]
    for verdict, labels in (
        ("Above", [one.label for one in different if one.difference > 0]),
        ("Below", [one.label for one in different if one.difference < 0]),
        ("Not told apart from", [one.label for one in compared if one.corrected >= LEVEL]),
    ):
        if labels:
            lines.append(f"{verdict} {reference} (corrected p, 5 %): {', '.join(labels)}.")
    return lines


def _with_error(label: str, mean: float, error: float | None) -> str:
    return f"{label} {mean:.1f}" + ("" if error is None else f" ± {error:.1f}") + " %"


def draw_fusions(runs: dict[str, list[Outcome]], test: Sequence[Question]) -> Any:
    """A group of bars per category and one for the mean, with standard errors over the seeds."""
    groups = ids_by(test, "category")
    table = {label: standing(outcomes, groups) for label, outcomes in runs.items()}
    names = [*groups, "mean"]
    figure = new_figure(13, 5)
    axis = figure.subplots()
    width = 0.84 / len(table)
    for number, (label, row) in enumerate(table.items()):
        positions = [x - 0.42 + (number + 0.5) * width for x in range(len(names))]
        errors = [math.nan if row[name][1] is None else row[name][1] for name in names]  # None: of one seed
        axis.bar(
            positions,
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
