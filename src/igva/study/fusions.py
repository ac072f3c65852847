"""Fusions under identical conditions: one recipe, the same data, the same seeds, and what each costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from igva.layer_names import group_label
from igva.model.fusion_base import FusionDims
from igva.model.fusions import fusion_class
from igva.study.fusions_figure import draw_fusions
from igva.study.items import Item
from igva.study.readout import Material, ReadoutSettings, ReadoutTrial
from igva.study.report import Cell, Figure, Table, write_report
from igva.study.standings import by_label, holm, ids_by, paired, scores_table, standing
from igva.study.trials import Job, Outcome, Trials
from igva.study.variants import Variant, align_variant

Run = Callable[[Variant, int], Outcome]


def readout_run(material: Material, settings: ReadoutSettings, dims: FusionDims) -> Run:
    """Trains a fusion together with one readout for all tasks, which is given the question.

    A readout per task would know what is asked before it has read the question, and a fusion guided by the question
    could add nothing.
    """

    def run(variant: Variant, seed: int) -> Outcome:
        trial = ReadoutTrial(variant.build(dims), material, settings, seed=seed)
        cells = trial.warm_up(align_variant(variant, dims).build(dims)) if settings.warm_up_steps else None
        result = trial.run(material.train, material.test, f"{variant.label} seed {seed}")
        return Outcome(
            label=variant.label,
            seed=seed,
            scores=dict(zip([item.id for item in material.test], map(float, result.right), strict=True)),
            weights=result.weights,
            loss=result.loss,
            seconds=result.seconds,
            step_ms=result.step_ms,
            parameters=result.parameters,
            cells_right=cells,
        )

    return run


def study_fusions(
    run: Run,
    variants: Sequence[Variant],
    test: Sequence[Item],
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
    tables = [
        scores_table(runs, test, "category"),
        paired_table(runs, test, reference),
        cost_table(runs, variants, dims),
        scores_table(runs, test, "task"),
    ]
    if weights := weights_table(runs, variants, dims, names):
        tables.append(weights)
    return write_report(
        out,
        title="Fusions under identical conditions",
        summary=findings(runs, test, reference),
        tables=tables,
        figures=[Figure("fusions", "Accuracy per category", draw_fusions(runs, test))],
        settings={**settings, "seeds": seeds, "reference": reference},
    )


def paired_table(runs: dict[str, list[Outcome]], test: Sequence[Item], reference: str) -> Table:
    """Every variant against the reference on the same questions."""
    ids = [item.id for item in test]
    compared = {label: paired(runs[reference], runs[label], ids) for label in runs if label != reference}
    corrected = holm({label: p for label, (_, _, p) in compared.items()})
    rows: list[list[Cell]] = []
    for label, (difference, error, p) in compared.items():
        seeds = [
            sum(b.scores[name] - a.scores[name] for name in ids) / len(ids) * 100
            for a, b in zip(runs[reference], runs[label], strict=True)
        ]
        ahead = f"{sum(value > 0 for value in seeds)} of {len(seeds)}"
        rows.append(
            [label, round(difference, 2), round(error, 2), float(f"{p:.2g}"), float(f"{corrected[label]:.2g}"), ahead]
        )
    note = (
        f"Points above {reference} over all {len(ids)} questions, each question's score averaged over the seeds; "
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
            told = (f"{group_label(group, names)} {mean}" for group, mean in zip(groups[label], means, strict=True))
            rows.append([label, category, "; ".join(told)])
    if not rows:
        return None
    return Table("weights", "Layer weights per category", ["", "category", "mean weight of each layer group"], rows)


def findings(runs: dict[str, list[Outcome]], test: Sequence[Item], reference: str) -> list[str]:
    """Who is ahead, by how much, and what cannot be told apart."""
    groups = ids_by(test, "category")
    means = {label: standing(outcomes, groups)["mean"] for label, outcomes in runs.items()}
    order = sorted(means, key=lambda label: -means[label][0])
    lines = ["Mean over categories: " + "; ".join(_with_error(label, *means[label]) for label in order) + "."]
    ids = [item.id for item in test]
    compared = {label: paired(runs[reference], runs[label], ids) for label in runs if label != reference}
    corrected = holm({label: p for label, (_, _, p) in compared.items()})
    for verdict, keep in (
        ("above", lambda d, p: d > 0 and p < 0.05),
        ("below", lambda d, p: d < 0 and p < 0.05),
        ("not told apart from", lambda d, p: p >= 0.05),
    ):
        names = [label for label, (d, _, _) in compared.items() if keep(d, corrected[label])]
        if names:
            lines.append(f"{verdict.capitalize()} {reference} (corrected p, 5 %): {', '.join(names)}.")
    return lines


def _with_error(label: str, mean: float, error: float | None) -> str:
    return f"{label} {mean:.1f}" + ("" if error is None else f" ± {error:.1f}") + " %"
