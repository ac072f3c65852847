"""Say to the language model where each visual token lies in words that it knows."""

from __future__ import annotations

import math

import torch

from igva.errors import UserError
from igva.model.modeling_igva import IgvaForConditionalGeneration
from igva.model.processing_igva import IgvaProcessor
from igva.train.cells import word_embeddings

PLACES = ("left", "right", "top", "bottom")


@torch.no_grad()
def add_place_words(model: IgvaForConditionalGeneration, processor: IgvaProcessor, amount: float) -> None:
    """Add the embeddings of the words left, right, top and bottom to the visual positions, in place.

    Each word is strongest at its own edge of the picture and gone at the middle. What a token shows stands in the
    language model's words after the dense warm-up; this does the same for where it lies. The vectors are learnt
    further like the rest of the projector.

    Args:
        amount: 1 gives a token whose centre lay on the edge itself the word as it is.

    Raises:
        UserError: the visual tokens form no square.
    """
    positions = model.model.projector.positions
    assert positions is not None  # a recipe without them is refused
    side = math.isqrt(len(positions.weight))
    if side * side != len(positions.weight):
        raise UserError(f"{len(positions.weight)} visual tokens form no square: set warm_up.place_words=0")
    left, right, top, bottom = word_embeddings(model, processor, PLACES)
    centers = (torch.arange(side, device=left.device) + 0.5) / side
    near, far = (1 - 2 * centers).clamp_min(0)[:, None], (2 * centers - 1).clamp_min(0)[:, None]
    columns, rows = near * left + far * right, near * top + far * bottom  # (side, H) each
    positions.weight.add_((rows[:, None] + columns[None]).flatten(0, 1).to(positions.weight), alpha=amount)
