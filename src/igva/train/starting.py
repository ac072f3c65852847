"""What a run starts from, checked against its settings before any weight is loaded: shapes, names, configurations."""

from __future__ import annotations

from pathlib import Path

from igva.checkpoints.tiny import trained_path
from igva.checkpoints.trained import check_trained
from igva.errors import UserError
from igva.train.arguments import Recipe
from igva.train.plan import planned_model
from igva.train.stages import lora_scale
from igva.untrusted import CONFIG_FILE


def check_start(recipe: Recipe) -> None:
    """See that the parts, the fusion's options and what ``model.init_from`` brings fit together.

    Raises:
        UserError: they do not, or a part's configuration cannot be read.
    """
    model = planned_model(recipe)
    start = recipe.model.init_from
    if not start or recipe.model.is_whole:
        return
    trained = trained_path(start)
    if not trained.is_file() and (Path(start) / CONFIG_FILE).is_file():
        raise UserError(
            f"{start} holds a whole model, not what a run trained: start from it with 'model={{init_from: {start}}}', "
            "in place of the recipe's parts"
        )
    check_trained(model, trained, (recipe.lora.rank, lora_scale(recipe.lora)) if recipe.adapts() else None)
