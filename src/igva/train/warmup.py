"""Dense warm-up: each visual token learns the word drawn in its cell, before the language model is touched.

The projector is trained alone, on cached layer means.
"""

from __future__ import annotations

from typing import Any

import torch
from tqdm import tqdm
from transformers import get_cosine_schedule_with_warmup

from igva.errors import UserError
from igva.model.modeling_igva import IgvaForConditionalGeneration
from igva.train.arguments import Recipe
from igva.train.cells import CellTask


def check_no_question(model: IgvaForConditionalGeneration) -> None:
    """Raise ``UserError`` where the fusion needs a question: the warm-up has none."""
    if model.model.fusion.needs_instruction:
        raise UserError("the warm-up has no questions: use a fusion that needs none, such as mean")


def warm_up(model: IgvaForConditionalGeneration, recipe: Recipe, cells: CellTask) -> dict[str, float]:
    """Train the projector on cell labels; returns means over the last tenth of the steps: loss, and accuracy.

    Imagined cells have an accuracy of their own.
    """
    settings = recipe.warm_up
    optimizer = torch.optim.AdamW(model.model.projector.parameters(), lr=settings.learning_rate, weight_decay=0.0)
    schedule = get_cosine_schedule_with_warmup(optimizer, max(1, settings.steps // 20), settings.steps)
    generator = torch.Generator().manual_seed(recipe.optim.seed)
    history: list[tuple[float, float, float]] = []  # loss, share of cells and of imagined cells that are right
    with tqdm(total=settings.steps, desc="warm-up", unit="step") as bar:
        while len(history) < settings.steps:
            order = torch.randperm(len(cells.pictures), generator=generator).tolist()
            for start in range(0, len(order), settings.batch_size):
                result = cells([cells.pictures[i] for i in order[start : start + settings.batch_size]])
                optimizer.zero_grad()
                result.loss.backward()
                optimizer.step()
                schedule.step()
                history.append((result.loss.item(), *result.shares()))
                bar.update()
                bar.set_postfix(_shown(*history[-1]))
                if len(history) == settings.steps:
                    break
    last = torch.tensor(history[-max(1, settings.steps // 10) :]).nanmean(dim=0).tolist()
    names = ("warm_up_loss", "warm_up_cells_right", "warm_up_imagined_right")
    return {name: round(value, 4) for name, value in zip(names, last, strict=True) if value == value}


def _shown(loss: float, cells: float, imagined: float) -> dict[str, Any]:
    shares = {"cells": cells, "imagined": imagined}
    return {"loss": f"{loss:.3f}"} | {name: f"{share:.1%}" for name, share in shares.items() if share == share}
