"""From what a run trained to a model that stands alone."""

from __future__ import annotations

from pathlib import Path

from igva.checkpoints.trained import TRAINED_FILE
from igva.errors import UserError
from igva.files import result_folder
from igva.train.arguments import Recipe, recipe_from
from igva.train.resuming import RUN_FILE, read_run_file
from igva.train.starting_model import export


def merge(run: Path, output: Path) -> Path:
    """Write the model of a run, or of one of its checkpoints, as a Hugging Face folder with LoRA folded in.

    Args:
        run: the run's output folder, or a ``checkpoint-N`` inside it.
        output: a new or empty folder.

    Raises:
        UserError: no run, nothing trained there yet, or ``output`` is taken.
    """
    recipe = read_recipe(run)
    trained = run / TRAINED_FILE
    if not trained.is_file():
        raise UserError(f"{run} has no {TRAINED_FILE}: name a finished run or one of its checkpoint-N folders")
    with result_folder(output) as folder:
        export(recipe, trained, folder)
    return output


def read_recipe(run: Path) -> Recipe:
    """The recipe of a run, from its ``run.json``.

    Raises:
        UserError: there is none, or it is damaged.
    """
    for folder in (run, run.parent):
        if facts := read_run_file(folder):
            return recipe_from(facts["recipe"])
    raise UserError(f"{run} is no run of igva: {RUN_FILE} is neither in it nor beside it")
