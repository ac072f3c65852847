"""What each layer of the vision tower attends to on one picture, for the page."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from igva.attention import tower_attention
from igva.errors import UserError
from igva.layer_names import layer_names
from igva.model.modeling_igva import IgvaForConditionalGeneration
from igva.serve.failure import Refusal


def attention_maps(model: IgvaForConditionalGeneration, pixels: Tensor) -> dict[str, Any]:
    """Pixels ``(1, 3, height, width)`` → ``side``, ``what`` the maps show, and per layer its map, rows of numbers
    whose largest is 1.

    A layer that has a name besides its number comes with it.

    Raises:
        Refusal: this model's tower gives no attention weights.
    """
    try:
        attention, _ = tower_attention(model, pixels, model.model.fusion.taps)
    except UserError as error:
        raise Refusal(400, str(error)) from None
    maps = attention.maps()  # (L, side, side)
    scaled = maps / maps.amax(dim=(1, 2), keepdim=True).clamp_min(1e-12)
    rounded = torch.round(scaled * 1000) / 1000
    layers = [{"layer": number, "map": rows} for number, rows in zip(attention.layers, rounded.tolist(), strict=True)]
    if (names := layer_names(model.config)) is not None:
        for entry in layers:
            entry["name"] = names[entry["layer"] - 1]
    return {"side": maps.shape[-1], "what": attention.what, "layers": layers}
