"""External direct fusion (Layer_Select_Fuse, CVPR 2025): one layer of each stage, concatenated before the projector."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .fusion_base import Fusion, FusionConfig, FusionDims, FusionOutput
from .vision_layers import VisionLayers, resolve_tap

# The published sets. SigLIP-so400m has 27 blocks, the last of which LLaVA-style code drops: 25 is its base layer.
_PUBLISHED = {24: (3, 18, 23), 26: (3, 20, 25), 27: (3, 20, 25)}


@dataclass
class ExternalDirectConfig(FusionConfig):
    layers: list[int] | None = None  # shallow to deep; default: 3, 18, 23 of 24, for other depths in proportion


class ExternalDirectFusion(Fusion):
    """``[h3, h18, h23]`` of CLIP-L: a layer each of the beginning, the middle and the end, channel by channel."""

    config_class = ExternalDirectConfig
    summary = "one layer of each stage, channel by channel"
    source = "Layer_Select_Fuse, CVPR 2025"

    def __init__(self, config: ExternalDirectConfig, dims: FusionDims):
        super().__init__(config, dims)
        layers = config.layers if config.layers is not None else stage_layers(dims.num_layers)
        if not layers:
            raise ValueError("layers is empty: name at least one layer, or leave it out")
        self.taps = tuple(resolve_tap([layer], dims.num_layers) for layer in layers)
        self.output_dim = dims.vision_dim * len(self.taps)
        self.num_tokens = dims.num_patches

    def forward(self, layers: VisionLayers, instruction: Tensor | None) -> FusionOutput:
        return FusionOutput(features=layers.patches.transpose(1, 2).flatten(2))  # (I, T, N, D) -> (I, N, T·D)

    def fixed_blocks(self, weights: Tensor | None = None) -> Tensor | None:
        return torch.eye(len(self.taps))


def stage_layers(num_layers: int) -> list[int]:
    """3, 18 and 23 of 24 layers; for other depths in proportion, the last always the last but one."""
    if num_layers in _PUBLISHED:
        return list(_PUBLISHED[num_layers])
    last = max(1, num_layers - 1)
    return sorted({max(1, round(3 * num_layers / 24)), min(last, round(18 * num_layers / 24)), last})
