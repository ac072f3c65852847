"""TGIF (arXiv 2601.03100): the question alone weighs every layer.

Letters: ``I`` images, ``L`` encoder layers, ``N`` patches, ``D`` vision width, ``E`` instruction width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .fusion_base import Fusion, FusionConfig, FusionDims, FusionOutput
from .vision_layers import VisionLayers, resolve_tap


@dataclass
class TgifFusionConfig(FusionConfig):
    """The defaults are the published ones."""

    hidden_size: int = 512  # of the router
    base_layer: int = -2  # what the weighted sum is added to
    entropy_coef: float = 0.0  # on minus the entropy of the batch-mean weights


class TgifFusion(Fusion):
    """``LayerNorm(base + Σ_l w_l(question) h_l)`` over all layers 1..L; the picture has no say in the weights.

    The router reads igva's sentence vector. The original pools the language model's input embeddings over all
    unmasked tokens: in training that includes the answer and the system prompt, at inference not.
    """

    config_class = TgifFusionConfig
    needs_instruction = True
    summary = "question-only weights over every layer, added to the base layer"
    source = "TGIF 2026, arXiv 2601.03100"

    def __init__(self, config: TgifFusionConfig, dims: FusionDims):
        super().__init__(config, dims)
        assert dims.instruction_dim is not None  # checked by Fusion
        self.layer_groups = tuple((layer,) for layer in range(1, dims.num_layers + 1))
        self.taps = (resolve_tap([config.base_layer], dims.num_layers), *self.layer_groups)
        self.output_dim = dims.vision_dim
        self.num_tokens = dims.num_patches
        self.router = nn.Sequential(
            nn.Linear(dims.instruction_dim, config.hidden_size),
            nn.ReLU(),
            nn.Linear(config.hidden_size, dims.num_layers),
        )
        self.norm = nn.LayerNorm(dims.vision_dim)
        self.entropy_coef = config.entropy_coef

    def forward(self, layers: VisionLayers, instruction: Tensor | None) -> FusionOutput:
        if instruction is None:
            raise ValueError("fusion 'tgif' needs an instruction for every image: pass instruction_input_ids or embeds")
        logits = self.router(instruction)
        weights = logits.float().softmax(dim=-1).to(logits.dtype)  # (I, L)
        base, single = layers.patches[:, 0], layers.patches[:, 1:]
        features = self.norm(base + torch.einsum("il,ilnd->ind", weights, single))
        aux_loss = None
        if self.entropy_coef:
            aux_loss = -self.entropy_coef * torch.special.entr(weights.float().mean(dim=0)).sum()
        return FusionOutput(features=features, weights=weights, aux_loss=aux_loss)
