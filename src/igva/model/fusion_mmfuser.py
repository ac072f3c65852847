"""MMFuser (arXiv 2410.11829): the base layer looks details up in shallower ones by deformable attention.

Letters: ``I`` images, ``N`` patches, ``D`` vision width, ``M`` attention heads, ``V`` value levels, ``P`` points.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from .fusion_base import Fusion, FusionConfig, FusionDims, FusionOutput
from .vision_layers import VisionLayers, resolve_tap


@dataclass
class MMFuserConfig(FusionConfig):
    """The defaults are the published ones."""

    layers: list[int] | None = None  # shallow to deep, the last is the query; default: 3, 8, 13, 18, 23 of 24
    num_heads: int = 16  # M
    num_points: int = 4  # P


def published_layers(num_layers: int) -> list[int]:
    """-22, -17, -12, -7, -2 of 24 layers; for other depths in proportion, the last always the last but one."""
    if num_layers == 24:
        return [3, 8, 13, 18, 23]
    last = max(1, num_layers - 1)
    return sorted({*(max(1, min(last, round(layer * num_layers / 24))) for layer in (3, 8, 13, 18)), last})


class DeformableAttention(nn.Module):
    """Multi-scale deformable attention (arXiv 2010.04159): each head reads a few points around its place, per level.

    Sampling is ``grid_sample``: bilinear, zeros outside, float32; there is no custom operator.
    """

    def __init__(self, width: int, num_levels: int, num_heads: int, num_points: int):
        super().__init__()
        self.num_levels, self.num_heads, self.num_points = num_levels, num_heads, num_points
        spots = num_heads * num_levels * num_points
        self.sampling_offsets = RingOffsets(width, spots * 2, num_heads, num_levels, num_points)
        self.attention_weights = EvenLinear(width, spots)
        self.value_proj = XavierLinear(width, width)
        self.output_proj = XavierLinear(width, width)

    def forward(self, query: Tensor, values: Tensor) -> Tensor:
        """Query ``(I, N, D)`` on a square grid, values ``(I, V, N, D)`` on the same → ``(I, N, D)``."""
        images, patches, _ = query.shape
        heads, levels, points = self.num_heads, self.num_levels, self.num_points
        offsets = self.sampling_offsets(query).view(images, patches, heads, levels, points, 2)
        weights = self.attention_weights(query).view(images, patches, heads, levels * points)
        values = self.value_proj(values)
        device = query.device.type  # "meta", where costs are counted, knows no autocast
        with torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext():
            weights = weights.float().softmax(dim=-1).view(images, patches, heads, levels, points)
            mixed = self._read(values.float(), offsets.float(), weights)
        out: Tensor = self.output_proj(mixed.to(query.dtype))
        return out

    def _read(self, values: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
        """``(I, V, N, D)``, offsets in patches ``(I, N, M, V, P, 2)``, weights ``(I, N, M, V, P)`` → ``(I, N, D)``."""
        images, levels, patches, width = values.shape
        heads, side = self.num_heads, math.isqrt(patches)
        # (I, V, N, D) -> (I·V·M, D/M, side, side): a small picture per level and head
        maps = values.view(images, levels, side, side, heads, width // heads).permute(0, 1, 4, 5, 2, 3)
        centre = (torch.arange(side, device=values.device, dtype=torch.float32) + 0.5) / side
        rows, columns = torch.meshgrid(centre, centre, indexing="ij")
        reference = torch.stack([columns, rows], dim=-1).view(1, patches, 1, 1, 1, 2)
        places = reference + offsets / side  # 0..1
        grid = (2 * places - 1).permute(0, 3, 2, 1, 4, 5).flatten(0, 2)  # (I·V·M, N, P, 2)
        read = functional.grid_sample(
            maps.flatten(0, 2), grid, mode="bilinear", padding_mode="zeros", align_corners=False
        )  # (I·V·M, D/M, N, P)
        read = read.view(images, levels, heads, width // heads, patches, -1)
        return torch.einsum("ivmdnp,inmvp->inmd", read, weights).reshape(images, patches, width)


class RingOffsets(nn.Linear):
    """Sampling offsets that start as a ring: head m looks in direction 2πm/M, point p at distance p + 1."""

    def __init__(self, width: int, out: int, num_heads: int, num_levels: int, num_points: int):
        self.ring = (num_heads, num_levels, num_points)
        super().__init__(width, out)

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)
        heads, levels, points = self.ring
        angles = torch.arange(heads, dtype=torch.float32) * (2 * math.pi / heads)
        directions = torch.stack([angles.cos(), angles.sin()], dim=-1)
        directions = directions / directions.abs().amax(dim=-1, keepdim=True)
        distances = torch.arange(1, points + 1, dtype=torch.float32)
        ring = directions[:, None, None] * distances[None, None, :, None]  # (M, 1, P, 2)
        with torch.no_grad():
            self.bias.copy_(ring.expand(heads, levels, points, 2).reshape(-1))


class EvenLinear(nn.Linear):
    """A linear layer that starts at zero: its softmax is even."""

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)


class XavierLinear(nn.Linear):
    """Xavier-uniform weights, no bias to begin with."""

    def reset_parameters(self) -> None:
        nn.init.xavier_uniform_(self.weight)
        nn.init.zeros_(self.bias)


class ClosedGate(nn.Module):
    """A factor per channel that starts at zero."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)

    def forward(self, features: Tensor) -> Tensor:
        return self.weight * features


class MMFuserFusion(Fusion):
    """``X + γ₁ (A + γ₂ attention(A))`` with ``A = attention(X, shallower layers)``; it starts as ``X``, the base."""

    config_class = MMFuserConfig
    image_dependent = True
    summary = "the base layer looks details up in four shallower ones by deformable attention"
    source = "MMFuser 2024, arXiv 2410.11829"

    def __init__(self, config: MMFuserConfig, dims: FusionDims):
        super().__init__(config, dims)
        width = dims.vision_dim
        layers = config.layers if config.layers is not None else published_layers(dims.num_layers)
        if len(layers) < 2:
            raise ValueError(f"layers {layers}: name at least one shallower layer and the base layer")
        if config.num_points < 1:
            raise ValueError(f"num_points {config.num_points}: each head reads at least one point per level")
        if config.num_heads < 1 or width % config.num_heads:
            raise ValueError(f"num_heads {config.num_heads} does not divide the vision width {width}")
        if math.isqrt(dims.num_patches) ** 2 != dims.num_patches:
            raise ValueError(f"mmfuser needs a square grid of patches, not {dims.num_patches}")
        self.taps = tuple(resolve_tap([layer], dims.num_layers) for layer in layers)
        self.output_dim = width
        self.num_tokens = dims.num_patches
        self.query_norm = nn.LayerNorm(width, eps=1e-6)
        self.value_norm = nn.LayerNorm(width, eps=1e-6)
        self.cross = DeformableAttention(width, len(layers) - 1, config.num_heads, config.num_points)
        self.self_norm = nn.LayerNorm(width, eps=1e-6)
        self.own = DeformableAttention(width, 1, config.num_heads, config.num_points)
        self.gamma_1 = ClosedGate(width)
        self.gamma_2 = ClosedGate(width)

    def forward(self, layers: VisionLayers, instruction: Tensor | None) -> FusionOutput:
        base, shallow = layers.patches[:, -1], layers.patches[:, :-1]  # (I, N, D), (I, V, N, D)
        details = self.cross(self.query_norm(base), self.value_norm(shallow))
        normed = self.self_norm(details)
        details = details + self.gamma_2(self.own(normed, normed[:, None]))
        return FusionOutput(features=base + self.gamma_1(details))
