"""Where the curves go: TensorBoard, trackio, wandb."""

from __future__ import annotations

import importlib.util

from igva.errors import UserError
from igva.train.arguments import Recipe

_PACKAGES = {"tensorboard": "tensorboard", "trackio": "trackio", "wandb": "wandb"}


def check_trackers(recipe: Recipe) -> None:
    """Raise ``UserError`` for a tracker whose package is missing: before training, not after."""
    for name in recipe.log_to:
        if importlib.util.find_spec(_PACKAGES[name]) is None:
            raise UserError(f"log_to={name} needs the package {_PACKAGES[name]}: pip install {_PACKAGES[name]}")
