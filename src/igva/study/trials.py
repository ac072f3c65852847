"""What every study that trains does: variants of a fusion, run once each and kept as files, and their mean scores."""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from igva.data.questions import Question
from igva.errors import UserError
from igva.files import write_errors, write_file
from igva.model.fusion_base import Fusion, FusionDims
from igva.model.fusions import build_fusion, fusion_class
from igva.resume import claim
from igva.tables import Cell, Table

SETTINGS = "settings.json"  # of a study's folder: what it was begun with


# --- what is compared ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Variant:
    """What a study compares: a fusion and its options; ``label`` is how it was written on the command line."""

    label: str
    fusion: str
    kwargs: dict[str, Any] = field(default_factory=dict)

    def build(self, dims: FusionDims) -> Fusion:
        """The fusion, freshly initialised.

        Raises:
            UserError: no such fusion or option, or it does not fit the tower.
        """
        try:
            return build_fusion(self.fusion, self.kwargs, dims)
        except (ValueError, TypeError) as error:
            raise UserError(f"{self.label}: {error}") from error


def parse_variant(text: str) -> Variant:
    """``igva:level_embeddings=true,hidden_size=256`` → a variant; values are YAML.

    Raises:
        UserError: an option without a value, or a value that is not YAML.
    """
    name, _, options = text.partition(":")
    kwargs = {}
    for option in _split(options):
        key, equals, value = option.partition("=")
        if not equals or not key:
            raise UserError(f"{text}: option {option!r} needs a value, as in single:layer=-2")
        try:
            kwargs[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UserError(f"{text}: the value of {key!r} is not YAML") from error
    return Variant(text, name.strip(), kwargs)


def parse_variants(texts: Sequence[str], dims: FusionDims) -> list[Variant]:
    """All of them, each tried on the tower before anything is trained.

    Raises:
        UserError: none, one named twice, or one that cannot be built.
    """
    variants = [parse_variant(text) for text in texts]
    labels = [variant.label for variant in variants]
    if not variants:
        raise UserError("no fusion is named: see `igva fusions`")
    if twice := next((label for label in labels if labels.count(label) > 1), None):
        raise UserError(f"{twice} is named twice: name each fusion once")
    for variant in variants:
        variant.build(dims)
    return variants


def align_variant(variant: Variant, dims: FusionDims) -> Variant:
    """What stands in for a fusion while the projector alone is trained.

    A fusion that reads no question stays itself. One that does is untrained then, and the align stage has captions,
    not questions: IGVA takes the plain average of its groups (as the paper), one that hands on as many channels as a
    layer has takes its base layer.

    Raises:
        UserError: it is neither.
    """
    if not fusion_class(variant.fusion).needs_instruction:
        return variant
    built = variant.build(dims)
    if variant.fusion == "igva":
        kept = {key: value for key, value in variant.kwargs.items() if key in ("num_groups", "groups", "base_layer")}
        return Variant(variant.label, "mean", kept)
    if built.output_dim == dims.vision_dim and built.num_tokens == dims.num_patches:
        return Variant(variant.label, "single", {"layer": -2})
    raise UserError(f"{variant.label} has no stand-in for the align stage: leave that recipe out")


def _split(options: str) -> list[str]:
    """At commas outside brackets: ``layers=[1,2],k=3`` has two options."""
    parts, depth = [""], 0
    for character in options:
        depth += (character in "[{(") - (character in "]})")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part for part in parts if part.strip()]


# --- the runs, one file each -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What one run of a study came to.

    Attributes:
        label: the fusion or layer; ``seed`` of everything random in its run.
        scores: question id → 0..1.
        weights: mean layer weights per category, None where the fusion has none.
        loss: training loss at the end, mean over the last tenth of the steps; None where it is unknown.
        seconds: of training, on the machine of the study.
        step_ms: median time of a training step; None where it was not measured.
        parameters: of the fusion.
        cells_right: share of the visual tokens named right after a warm-up; None without one.
        moved: question id → total variation (0..1) between its weights and those of another task's question about the
            same picture; None where the fusion reads no question or gives no weights.
        exchanged: other weights → question id → score with them (``guidance.OTHER_WEIGHTS``); None likewise.
    """

    label: str
    seed: int
    scores: dict[str, float]
    weights: dict[str, list[float]] | None
    loss: float | None
    seconds: float
    step_ms: float | None
    parameters: int
    cells_right: float | None = None
    moved: dict[str, float] | None = None
    exchanged: dict[str, dict[str, float]] | None = None


@dataclass(frozen=True)
class Job:
    """One run to be done, and the function that does it."""

    label: str
    seed: int
    run: Callable[[], Outcome]


class Trials:
    """The folder ``runs`` of a study.

    Args:
        settings: all that every run shares; a folder begun with other settings is refused.

    Raises:
        UserError: the folder was begun with other settings; the message names the first that differs.
    """

    def __init__(self, out: Path, settings: dict[str, Any]):
        self.folder = out / "runs"
        with write_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            claim(self.folder / SETTINGS, settings, self.folder)

    def do(self, jobs: Iterable[Job], desc: str) -> list[Outcome]:
        """Every outcome in the order of the jobs; what is missing is run and written down at once."""
        jobs = list(jobs)
        outcomes = []
        with tqdm(total=len(jobs), desc=desc, unit="run") as bar:
            for job in jobs:
                file = self.folder / f"{slug(job.label)}-s{job.seed}.json"
                if not file.is_file():
                    write_file(file, (json.dumps(asdict(job.run())) + "\n").encode())
                outcomes.append(Outcome(**json.loads(file.read_text())))
                bar.update()
        return outcomes


def slug(label: str) -> str:
    """A label as part of a file name."""
    return re.sub(r"[^A-Za-z0-9=.+-]+", "_", label)


# --- their scores ----------------------------------------------------------------------------------------------------


def by_label(outcomes: Iterable[Outcome]) -> dict[str, list[Outcome]]:
    """The runs of each label, one per seed, in the order they came."""
    runs: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        runs[outcome.label].append(outcome)
    return dict(runs)


def ids_by(questions: Iterable[Question], kind: str) -> dict[str, list[str]]:
    """Question ids per ``category`` or ``task``, in alphabetical order of these."""
    ids: dict[str, list[str]] = defaultdict(list)
    for question in questions:
        ids[getattr(question, kind)].append(question.id)
    return {name: ids[name] for name in sorted(ids)}


def accuracy(outcome: Outcome, ids: Sequence[str]) -> float:
    """Mean score of these questions, in percent."""
    return 100 * sum(outcome.scores[name] for name in ids) / len(ids)


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean over seeds and its standard error (None for a single seed)."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, None
    return mean, math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))


def standing(runs: Sequence[Outcome], groups: Mapping[str, Sequence[str]]) -> dict[str, tuple[float, float | None]]:
    """Percent right per group and, as ``mean``, their plain average: mean over seeds and standard error."""
    per_seed = [{name: accuracy(run, ids) for name, ids in groups.items()} for run in runs]
    table = {name: mean_and_error([row[name] for row in per_seed]) for name in groups}
    table["mean"] = mean_and_error([sum(row.values()) / len(row) for row in per_seed])
    return table


def chance(questions: Sequence[Question], ids: Sequence[str], open_answers: int) -> float:
    """Percent right by guessing among the choices (among all known answers where a question has none)."""
    wanted = set(ids)
    shares = [1 / (len(q.choices) or open_answers) for q in questions if q.id in wanted]
    return 100 * sum(shares) / len(shares)


def scores_table(runs: dict[str, list[Outcome]], test: Sequence[Question], kind: str) -> Table:
    """Percent right per category or task, and their plain mean, with standard errors over the seeds."""
    groups = ids_by(test, kind)
    answers = len({question.answer for question in test})
    rows: list[list[Cell]] = []
    for label, outcomes in runs.items():
        row: list[Cell] = [label]
        for mean, error in standing(outcomes, groups).values():
            row += [round(mean, 1), None if error is None else round(error, 1)]
        rows.append(row)
    guesses = [chance(test, ids, answers) for ids in groups.values()]
    guess: list[Cell] = ["chance"]
    for value in (*guesses, sum(guesses) / len(guesses)):
        guess += [round(value, 1), None]
    columns = ["", *(text for name in (*groups, "mean") for text in (name, f"{name} ±"))]
    note = "Percent right, mean over seeds; ± is the standard error over seeds (empty for one seed)."
    return Table(f"by_{kind}", f"Accuracy per {kind}", columns, [*rows, guess], note)
