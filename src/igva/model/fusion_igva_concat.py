"""IGVA's allocator as gates of a concatenation: what a question does not need is turned down, not averaged in.

Letters: ``I`` images, ``K`` layer groups, ``N`` patches, ``D`` vision width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .fusion_base import FusionDims
from .fusion_igva import IgvaFusion, IgvaFusionConfig
from .vision_layers import VisionLayers


class IgvaConcatFusion(IgvaFusion):
    """``[base, K·w_1 F_1, …, K·w_K F_K]`` with IGVA's ``w``.

    With every weight at 1/K all gates are 1, and it is a concatenation of the groups as Dense Connector's DCI is one
    (arXiv 2405.13800), at as many visual tokens; the projector reads ``(bases + K) D`` channels. A sum over groups, the
    paper's form, cannot be undone by the projector; a gate can, unless it is shut.
    """

    summary = "igva's weights as gates on the layer groups, which stand side by side"
    source = "igva's own; the weights: arXiv 2501.08443"

    def __init__(self, config: IgvaFusionConfig, dims: FusionDims):
        super().__init__(config, dims)
        self.output_dim = (self.num_bases + len(self.layer_groups)) * dims.vision_dim

    def mix(self, layers: VisionLayers, weights: Tensor) -> Tensor:
        """``(I, N, (bases + K) D)``; weights ``(I, K)``, or ``(I, N, K)``, whose rows sum to 1."""
        gates = weights * len(self.layer_groups)
        gates = gates[:, :, None, None] if gates.dim() == 2 else gates.transpose(1, 2)[..., None]  # (I, K, N or 1, 1)
        groups = self.groups(layers).patches * gates
        return torch.cat([*layers.patches[:, : self.num_bases].unbind(1), *groups.unbind(1)], dim=-1)

    def fixed_blocks(self, weights: Tensor | None = None) -> Tensor | None:
        if weights is None:
            return None
        return torch.cat([torch.ones(self.num_bases), weights.float() * len(self.layer_groups)]).diag()
