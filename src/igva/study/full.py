"""One whole model per variant: the same recipes, data and budget, only the fusion differs (the paper's way)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from igva.answering import load
from igva.data.questions import Question
from igva.eval.run import evaluate, read_graded
from igva.model.fusion_base import FusionDims
from igva.study.trials import Outcome, Variant, align_variant, slug
from igva.train.arguments import Recipe, load_recipe
from igva.train.resuming import holds_run
from igva.train.run import run as train


def full_run(
    recipes: Sequence[str], overrides: Sequence[str], questions: Sequence[Question], out: Path, dims: FusionDims
) -> Callable[[Variant, int], Outcome]:
    """Trains a variant by the recipes, one stage after another, and scores it; finished stages are kept.

    Args:
        recipes: packaged names or files, in their order; each goes on from the one before.
        overrides: ``section.key=value`` for all of them.
        out: the study's folder; models go under ``models``, predictions under ``eval``.
        dims: of the recipes' vision tower.

    Raises:
        UserError: a recipe is wrong, or a variant cannot go through the align stage.
    """

    def run(variant: Variant, seed: int) -> Outcome:
        start, before = time.perf_counter(), None
        for stage, name in enumerate(recipes):
            folder = out / "models" / f"{slug(variant.label)}-s{seed}" / str(stage)
            last = stage == len(recipes) - 1
            recipe = stage_recipe(name, overrides, variant, seed, folder, before, dims, export=last)
            if not (folder / "trained.safetensors").is_file():
                train(recipe, resume=holds_run(folder), name=name, overrides=overrides)
            before = folder
        seconds = time.perf_counter() - start
        assert before is not None  # parse of the command line wants a recipe
        model, processor = load(before)
        predictions = out / "eval" / f"{slug(variant.label)}-s{seed}"
        evaluate(model, processor, questions, predictions)
        scores = {one.question.id: float(one.value) for one in read_graded(predictions, questions)}
        figures = json.loads((before / "run.json").read_text())["figures"]
        parameters = sum(parameter.numel() for parameter in model.model.fusion.parameters())
        return Outcome(
            variant.label, seed, scores, None, figures.get("train_loss"), round(seconds, 1), None, parameters
        )

    return run


def stage_recipe(
    name: str,
    overrides: Sequence[str],
    variant: Variant,
    seed: int,
    folder: Path,
    before: Path | None,
    dims: FusionDims,
    *,
    export: bool,
) -> Recipe:
    """A recipe with the variant's fusion, seed and folder in place of its own."""
    if load_recipe(name, overrides).stage == "align":
        variant = align_variant(variant, dims)
    own: dict[str, Any] = {
        "model.fusion": variant.fusion,
        "model.fusion_kwargs": variant.kwargs,
        "model.init_from": str(before) if before else None,
        "optim.seed": seed,
        "output": str(folder),
        "export": export,
    }
    return load_recipe(name, [*overrides, *(f"{key}={json.dumps(value)}" for key, value in own.items())])
