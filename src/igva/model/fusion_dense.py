"""Dense Connector (arXiv 2405.13800): more layers handed on, without parameters of its own; three forms.

Letters: ``I`` images, ``L`` encoder layers, ``N`` patches, ``D`` vision width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .fusion_base import Fusion, FusionConfig, FusionDims, FusionOutput
from .vision_layers import Tap, VisionLayers, resolve_tap

_SOURCE = "Dense Connector, NeurIPS 2024, arXiv 2405.13800"


@dataclass
class DenseFusionConfig(FusionConfig):
    """Base of the three forms."""

    base_layer: int = -2  # always kept, first in the concatenation


@dataclass
class DensePairConfig(DenseFusionConfig):
    """STI and SCI: two single layers beside the base."""

    layers: list[int] | None = None  # default: a third and two thirds of the way, 7 and 15 of 24 as published


@dataclass
class DenseStiConfig(DensePairConfig):
    pool: int = 8  # neighbouring tokens, in raster order, averaged into one


class _DenseFusion(Fusion):
    """Base of the three forms."""

    summary = "parameter-free concatenation of more layers"
    source = _SOURCE
    config: Any

    def __init__(self, config: DenseFusionConfig, dims: FusionDims):
        super().__init__(config, dims)
        self.taps = (resolve_tap([config.base_layer], dims.num_layers), *self.further_taps())
        self.output_dim = dims.vision_dim * len(self.taps)
        self.num_tokens = dims.num_patches

    def further_taps(self) -> tuple[Tap, ...]:
        """What is handed on beside the base layer."""
        raise NotImplementedError

    def forward(self, layers: VisionLayers, instruction: Tensor | None) -> FusionOutput:
        return FusionOutput(features=layers.patches.transpose(1, 2).flatten(2))  # (I, T, N, D) -> (I, N, T·D)

    def fixed_blocks(self, weights: Tensor | None = None) -> Tensor | None:
        return torch.eye(len(self.taps))


class _DensePairFusion(_DenseFusion):
    config: DensePairConfig

    def further_taps(self) -> tuple[Tap, ...]:
        depth = self.dims.num_layers
        # 7 and 15 of CLIP-L's 24 layers; SigLIP-so400m, 26 or 27 deep, has the same two in the published code.
        layers = (
            self.config.layers if self.config.layers is not None else [round(7 * depth / 24), round(15 * depth / 24)]
        )
        if not layers:
            raise ValueError("layers is empty: name at least one layer, or leave it out")
        return tuple(resolve_tap([layer], depth) for layer in layers)


class DenseStiFusion(_DensePairFusion):
    """Sparse Token Integration: the further layers' tokens, averaged eight by eight, follow the base's tokens.

    720 visual tokens for CLIP-L's 576 patches. The windows run along the raster, as published: where they do not
    divide a row they straddle two, and a remainder at the end is dropped.
    """

    config_class = DenseStiConfig
    summary = "base tokens, then pooled tokens of two shallower layers"
    config: DenseStiConfig

    def __init__(self, config: DenseStiConfig, dims: FusionDims):
        super().__init__(config, dims)
        if not 1 <= config.pool <= dims.num_patches:
            raise ValueError(f"pool {config.pool} does not fit {dims.num_patches} patches")
        self.output_dim = dims.vision_dim
        self.num_tokens = dims.num_patches + (len(self.taps) - 1) * (dims.num_patches // config.pool)

    def forward(self, layers: VisionLayers, instruction: Tensor | None) -> FusionOutput:
        base, further = layers.patches[:, 0], layers.patches[:, 1:]  # (I, N, D), (I, T, N, D)
        images, taps, patches, width = further.shape
        channels_last = further.reshape(images * taps, patches, width)
        pooled = functional.avg_pool1d(channels_last.transpose(1, 2), self.config.pool).transpose(1, 2)
        return FusionOutput(features=torch.cat([base, pooled.reshape(images, -1, width)], dim=1))

    def fixed_blocks(self, weights: Tensor | None = None) -> Tensor | None:
        return None  # the further layers are further tokens


class DenseSciFusion(_DensePairFusion):
    """Sparse Channel Integration: ``[base, two shallower layers]`` along the channels."""

    config_class = DensePairConfig
    summary = "base and two shallower layers, channel by channel"


class DenseDciFusion(_DenseFusion):
    """Dense Channel Integration: ``[base, mean of the first half, mean of the second half]``, the form they recommend.

    The halves are those of the published code, ``h[0..11]`` and ``h[12..23]`` of 24 layers: the embedding output
    counts, the last block does not (the paper's text says 1 to 12 and 13 to 24).
    """

    config_class = DenseFusionConfig
    summary = "base and the means of the shallower and the deeper half, channel by channel"

    def further_taps(self) -> tuple[Tap, ...]:
        depth = self.dims.num_layers
        half = depth // 2
        return tuple(range(half)), tuple(range(half, depth))
