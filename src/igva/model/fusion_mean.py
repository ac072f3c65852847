"""The plain average of the layer groups beside the base layer: IGVA without its allocator, and its stage 1."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .fusion_base import Fusion, FusionConfig, FusionDims, FusionOutput
from .vision_layers import Tap, VisionLayers, resolve_tap, split_layers


@dataclass
class GroupedFusionConfig(FusionConfig):
    """Which layers are mixed, and beside which base layer."""

    num_groups: int = 4  # K; ignored where groups is given
    groups: list[list[int]] | None = None  # explicit layer groups; they may be of any number and size
    # Its patches come first in the concatenation. Several, beside each other: for towers of several encoders, in which
    # no layer has what every question needs. Each widens what the projector reads by D.
    base_layer: int | list[int] = -2

    def resolve_groups(self, num_layers: int) -> tuple[Tap, ...]:
        """The K groups as absolute layer numbers.

        Raises:
            ValueError: empty or overlapping groups, or a layer that does not exist.
        """
        if self.groups is None:
            return split_layers(num_layers, self.num_groups)
        groups = tuple(resolve_tap(group, num_layers) for group in self.groups)
        if not groups:
            raise ValueError("groups is empty: name at least one layer group, or leave it out and set num_groups")
        seen: set[int] = set()
        for group in groups:
            if twice := seen.intersection(group):
                raise ValueError(f"layer groups overlap: layer {min(twice)} stands in two of {self.groups}")
            seen.update(group)
        return groups


class GroupedFusion(Fusion):
    """Base of the fusions that concatenate ``[base, Σ_k w_k F_k]``; the taps of the base layers come first."""

    config: GroupedFusionConfig

    def __init__(self, config: GroupedFusionConfig, dims: FusionDims):
        super().__init__(config, dims)
        self.layer_groups = config.resolve_groups(dims.num_layers)
        bases = config.base_layer if isinstance(config.base_layer, list) else [config.base_layer]
        if not bases:
            raise ValueError("base_layer is an empty list: name at least one layer")
        self.num_bases = len(bases)
        self.taps = (*(resolve_tap([layer], dims.num_layers) for layer in bases), *self.layer_groups)
        self.output_dim = (self.num_bases + 1) * dims.vision_dim
        self.num_tokens = dims.num_patches

    def mix(self, layers: VisionLayers, weights: Tensor) -> Tensor:
        """``[base, F]`` with ``F = Σ_k w_k F_k``: ``(I, N, 2D)``; weights ``(I, K)``, or ``(I, N, K)``."""
        groups = self.groups(layers).patches  # (I, K, N, D)
        fused = torch.einsum("ik,iknd->ind" if weights.dim() == 2 else "ink,iknd->ind", weights, groups)
        return torch.cat([*layers.patches[:, : self.num_bases].unbind(1), fused], dim=-1)

    def fixed_blocks(self, weights: Tensor | None = None) -> Tensor | None:
        if weights is None:
            return None
        bases = torch.eye(self.num_bases, len(self.taps))
        return torch.cat([bases, torch.cat([torch.zeros(self.num_bases), weights.float()])[None]])

    def groups(self, layers: VisionLayers) -> VisionLayers:
        """Of the taps, those of the groups: ``(I, K, N, D)`` and ``(I, K, D)``."""
        return VisionLayers(layers.patches[:, self.num_bases :], layers.descriptors[:, self.num_bases :])


@dataclass
class MeanFusionConfig(GroupedFusionConfig):
    pass


class MeanFusion(GroupedFusion):
    """Every group has the weight 1/K, whatever the question."""

    config_class = MeanFusionConfig
    summary = "uniform average of the layer groups beside the base layer"
    source = "IGVA's stage 1, arXiv 2501.08443"

    def forward(self, layers: VisionLayers, instruction: Tensor | None) -> FusionOutput:
        images, k = layers.patches.shape[0], len(self.layer_groups)
        weights = layers.patches.new_full((images, k), 1.0 / k)
        return FusionOutput(features=self.mix(layers, weights), weights=weights)

    def fixed_blocks(self, weights: Tensor | None = None) -> Tensor | None:
        count = len(self.layer_groups)
        return super().fixed_blocks(torch.full((count,), 1.0 / count))
