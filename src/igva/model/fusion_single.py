"""One layer, as it is: LLaVA-1.5 is ``layer=-2``."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .fusion_base import Fusion, FusionConfig, FusionDims, FusionOutput
from .vision_layers import VisionLayers, resolve_tap


@dataclass
class SingleFusionConfig(FusionConfig):
    layer: int = -2  # hidden-state number; 0 is the embedding output, negative counts from the last


class SingleFusion(Fusion):
    """The patches of one hidden state, ``(I, N, D)``: the baseline every other method is compared with."""

    config_class = SingleFusionConfig
    summary = "one layer (LLaVA-1.5: the last but one)"
    source = "Liu et al. 2023, arXiv 2310.03744"

    def __init__(self, config: SingleFusionConfig, dims: FusionDims):
        super().__init__(config, dims)
        self.taps = (resolve_tap([config.layer], dims.num_layers),)
        self.output_dim = dims.vision_dim
        self.num_tokens = dims.num_patches

    def forward(self, layers: VisionLayers, instruction: Tensor | None) -> FusionOutput:
        return FusionOutput(features=layers.patches[:, 0])

    def fixed_blocks(self, weights: Tensor | None = None) -> Tensor | None:
        return torch.ones(1, 1)
