"""What was decided for a run: printed, and kept in ``run.json``."""

from __future__ import annotations

import dataclasses
import hashlib
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import igva
from igva.checkpoints.tiny import EMBEDDED_TINY, tiny_revision, trained_path
from igva.checkpoints.trained import read_trained
from igva.data.records import Record
from igva.files import sha256_of, write_json
from igva.train.arguments import Recipe
from igva.train.distributed import shares, world_size
from igva.train.resuming import RUN_FILE, Beginning
from igva.train.stages import describe, parameter_groups
from igva.versions import versions


class Report:
    """Everything a reader needs to repeat a run.

    Args:
        recipe: with settled precision.
        precision: what ``settle_precision`` says of it.
        data: see ``data_facts``.
        begun: where the run begins.
    """

    def __init__(
        self,
        recipe: Recipe,
        model: Any,
        data: Mapping[str, Any],
        *,
        precision: Mapping[str, str],
        begun: Beginning,
        name: str = "",
        overrides: Sequence[str] = (),
    ):
        self.recipe = recipe
        micro, accumulate = shares(recipe)
        self.facts: dict[str, Any] = {
            "recipe_name": name,
            "overrides": list(overrides),
            "recipe": dataclasses.asdict(recipe),
            "precision": dict(precision),
            "trained": list(recipe.trains()),
            "inherited": _inherited(recipe),
            "parameters": describe(model),
            "learning_rates": {group["name"]: group["lr"] for group in parameter_groups(model, recipe.optim)},
            "batch": {"processes": world_size(), "micro_batch_size": micro, "accumulated": accumulate},
            "data": dict(data),
            "versions": run_versions(),
            "hardware": {
                "device": str(model.device),
                "threads": torch.get_num_threads(),
                "machine": platform.machine(),
            },
            "resumed": begun.history(),
        }

    def decided(self) -> list[str]:
        """One line per decision, for the terminal."""
        recipe, facts = self.recipe, self.facts
        rates = ", ".join(f"{part} {rate:g}" for part, rate in facts["learning_rates"].items())
        batch = facts["batch"]
        lines = [
            f"stage                {recipe.stage}; trained: {', '.join(facts['trained'])}; the rest is frozen",
            f"learning rates       {rates}",
            f"batch                {recipe.optim.batch_size} = {batch['micro_batch_size']} at a time × "
            f"{batch['accumulated']} × {batch['processes']} processes ({recipe.distributed})",
            f"precision            frozen parts {facts['precision']['dtype']}; autocast {facts['precision']['bf16']}",
            f"data                 {facts['data']}",
        ]
        if recipe.data.leave_out:
            lines.append(f"left out             {', '.join(recipe.data.leave_out)}")
        if recipe.warm_up.place_words:
            lines.append(f"place words          {recipe.warm_up.place_words:g}, added to the visual positions")
        lines += [f"inherited            {what} from {path}" for what, path in facts["inherited"].items()]
        lines += [f"overridden           {override}" for override in facts["overrides"]]
        return lines

    def write(self, output: Path, figures: dict[str, Any]) -> None:
        """``run.json``: by a temporary name, so that it is never half there."""
        content = {**self.facts, "figures": figures}
        write_json(output / RUN_FILE, content)


def _inherited(recipe: Recipe) -> dict[str, str]:
    model = recipe.model
    inherited = {"everything but the allocator": model.retrofit} if model.retrofit else {}
    if model.is_whole:
        inherited["everything"] = str(model.init_from)
    elif model.init_from:
        tensors, _ = read_trained(trained_path(model.init_from))
        parts = sorted({name.split(".")[0].replace("_", " ") for name in tensors})
        shipped = f" {tiny_revision()}" if model.init_from == EMBEDDED_TINY else ""  # a release may ship others
        inherited[", ".join(parts)] = model.init_from + shipped
    return inherited


def data_facts(recipe: Recipe, records: Sequence[Record] | Any) -> dict[str, Any]:
    """Number of samples and pictures, and the hash of every source that lies on this disk."""
    sources = recipe.data.train if isinstance(recipe.data.train, list) else [recipe.data.train]
    facts: dict[str, Any] = {"sha256": {source: fingerprint(source) for source in sources}}
    if isinstance(records, (str, list)) and all(isinstance(item, str) for item in records):
        return {"streamed": True, **facts}
    pictures = len({str(image) for record in records for image in record.images})
    return {"samples": len(records), "pictures": pictures, **facts}


def fingerprint(source: str) -> str | None:
    """The hash of a file, or of a folder's file names and sizes; None for what is not on this disk."""
    path = Path(source)
    if path.is_file():
        return sha256_of(path)
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file())
        listing: Iterable[str] = (f"{p.relative_to(path)} {p.stat().st_size}" for p in files)
        return hashlib.sha256("\n".join(listing).encode()).hexdigest()
    return None


def run_versions() -> dict[str, str | None]:
    """Of everything that a run's numbers depend on."""
    return {**versions("accelerate", "peft"), "git": _git_commit()}


def _git_commit() -> str | None:
    """The commit of igva's own source tree, with a mark where it was changed; None for an installed package."""
    folder = Path(igva.__file__).parent
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
