"""MoL, mixture of layers (arXiv 2610.09440): the question picks a few layers, per picture, per patch, or both.

Letters: ``I`` images, ``L`` encoder layers, ``N`` patches, ``D`` vision width, ``E`` instruction width.

The paper leaves open, and this file chooses: the question is igva's sentence vector (theirs pools CLIP's text encoder);
keys and query are as wide as ``router_dim`` (default: the vision width) and without bias; the layers that are picked
share what remains by renormalising; the load-balance loss counts a layer as used where it is picked; the temperature
falls linearly over ``anneal_steps`` training steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .fusion_base import Fusion, FusionConfig, FusionDims, FusionOutput
from .vision_layers import VisionLayers, resolve_tap


@dataclass
class MolFusionConfig(FusionConfig):
    """The defaults are the published ones where the text has them."""

    top_k: int = 4  # layers that are kept, 1 to 4 in the paper
    router_dim: int | None = None  # None: the vision width
    base_layer: int = -2  # what the hybrid falls back on
    load_balance_coef: float = 0.01
    temperature: float = 1.0  # of the softmax over layers, at the end
    start_temperature: float = 2.0  # at the beginning, where anneal_steps is set
    anneal_steps: int = 0  # training steps from one to the other; 0: the end from the start


class LayerScores(nn.Module):
    """How well each layer's vectors fit the question: ``(W_q s) · (W_k h) / sqrt(width)``."""

    def __init__(self, instruction_dim: int, vision_dim: int, width: int):
        super().__init__()
        self.query_proj = nn.Linear(instruction_dim, width, bias=False)
        self.key_proj = nn.Linear(vision_dim, width, bias=False)

    def forward(self, instruction: Tensor, states: Tensor) -> Tensor:
        """``s (I, E)``, states ``(I, L, …, D)`` → ``(I, L, …)``."""
        # W_k is applied to the query, once per picture, instead of to every patch of every layer
        asked = self.query_proj(instruction) @ self.key_proj.weight / self.key_proj.weight.shape[0] ** 0.5  # (I, D)
        return torch.einsum("id,il...d->il...", asked, states)


class _MolFusion(Fusion):
    """Base of the three forms."""

    config_class = MolFusionConfig
    needs_instruction = True
    image_dependent = True
    summary = "the question picks a few layers"
    source = "MoL 2026, arXiv 2610.09440"
    config: MolFusionConfig
    _seen: Tensor

    def __init__(self, config: MolFusionConfig, dims: FusionDims):
        super().__init__(config, dims)
        assert dims.instruction_dim is not None  # checked by Fusion
        if not 1 <= config.top_k <= dims.num_layers:
            raise ValueError(f"top_k {config.top_k} does not fit {dims.num_layers} layers")
        self.layer_groups = tuple((layer,) for layer in range(1, dims.num_layers + 1))
        self.taps = (resolve_tap([config.base_layer], dims.num_layers), *self.layer_groups)
        self.output_dim = dims.vision_dim
        self.num_tokens = dims.num_patches
        self.scores = LayerScores(dims.instruction_dim, dims.vision_dim, config.router_dim or dims.vision_dim)
        self.register_buffer("_seen", torch.zeros((), dtype=torch.long))  # training steps so far

    def temperature(self) -> float:
        """What the scores are divided by; counts one more step where the module is training."""
        config = self.config
        if not config.anneal_steps:
            return config.temperature
        done = min(1.0, int(self._seen) / config.anneal_steps)
        if self.training:
            self._seen += 1
        return config.start_temperature + (config.temperature - config.start_temperature) * done

    def shares(self, scores: Tensor) -> Tensor:
        """Softmax over layers, ``(I, L, …)`` → ``(I, …, L)``."""
        return (scores.float() / self.temperature()).softmax(dim=1).movedim(1, -1)

    def pick(self, shares: Tensor) -> Tensor:
        """The ``top_k`` largest shares, renormalised; the others are zero."""
        kept = shares.topk(self.config.top_k, dim=-1)
        picked = torch.zeros_like(shares).scatter(-1, kept.indices, kept.values)
        return picked / picked.sum(dim=-1, keepdim=True)

    def load_balance(self, shares: Tensor, picked: Tensor) -> Tensor | None:
        """``L Σ_l f_l P_l`` (Switch, arXiv 2101.03961): f how often a layer is picked, P its mean share."""
        if not self.config.load_balance_coef:
            return None
        flat, used = shares.flatten(0, -2), (picked > 0).float().flatten(0, -2) / self.config.top_k
        return self.config.load_balance_coef * shares.shape[-1] * (used.mean(dim=0) * flat.mean(dim=0)).sum()

    def check(self, instruction: Tensor | None) -> Tensor:
        """The instruction; raises ``ValueError`` where there is none."""
        if instruction is None:
            raise ValueError("fusion 'mol' needs an instruction for every image: pass instruction_input_ids or embeds")
        return instruction


class MolLayerFusion(_MolFusion):
    """One set of layers per picture: keys are the layers' mean patches. ``Σ_l w_l h_l``."""

    summary = "the question picks a few layers, per picture"

    def forward(self, layers: VisionLayers, instruction: Tensor | None) -> FusionOutput:
        single = layers.patches[:, 1:]  # (I, L, N, D)
        shares = self.shares(self.scores(self.check(instruction), single.mean(dim=2)))  # (I, L)
        weights = self.pick(shares)
        features = torch.einsum("il,ilnd->ind", weights.to(single.dtype), single)
        return FusionOutput(features=features, weights=weights, aux_loss=self.load_balance(shares, weights))


class MolPatchFusion(_MolFusion):
    """One set of layers per patch: keys are the patch itself in every layer. ``Σ_l w_nl h_nl``."""

    summary = "the question picks a few layers, per patch"

    def forward(self, layers: VisionLayers, instruction: Tensor | None) -> FusionOutput:
        single = layers.patches[:, 1:]
        shares = self.shares(self.scores(self.check(instruction), single))  # (I, N, L)
        weights = self.pick(shares)
        features = torch.einsum("inl,ilnd->ind", weights.to(single.dtype), single)
        return FusionOutput(features=features, weights=weights, aux_loss=self.load_balance(shares, weights))


class MolHybridFusion(_MolFusion):
    """Both, mixed geometrically, with a way back to the base layer where they disagree.

    ``q_n ∝ p_g^(1-β) p_n^β`` with ``β = σ(w·s + b)``; ``γ_n = σ(w_d KL(p_n ‖ p_g) + b_d)``;
    ``(1 - γ_n) Σ_topk q_nl h_nl + γ_n h_base``. ``w_d`` and ``b_d`` start at zero, so that γ starts at a half.
    """

    summary = "the question picks a few layers, per picture and patch, or falls back on the base layer"

    def __init__(self, config: MolFusionConfig, dims: FusionDims):
        super().__init__(config, dims)
        assert dims.instruction_dim is not None
        self.to_beta = nn.Linear(dims.instruction_dim, 1)
        self.disagreement = Disagreement()

    def forward(self, layers: VisionLayers, instruction: Tensor | None) -> FusionOutput:
        instruction = self.check(instruction)
        base, single = layers.patches[:, 0], layers.patches[:, 1:]
        scores = self.scores(instruction, single)  # (I, L, N)
        temperature = self.temperature()
        # the score is linear in the state, so a layer's score of its mean patch is the mean of its patches' scores
        whole = (scores.float().mean(dim=2) / temperature).log_softmax(dim=1)[:, None]  # (I, 1, L)
        patch = (scores.float() / temperature).log_softmax(dim=1).transpose(1, 2)  # (I, N, L)
        beta = self.to_beta(instruction).float().sigmoid()[..., None]  # (I, 1, 1)
        shares = ((1 - beta) * whole + beta * patch).softmax(dim=-1)
        weights = self.pick(shares)
        apart = (patch.exp() * (patch - whole)).sum(dim=-1, keepdim=True)  # (I, N, 1), KL(p_n ‖ p_g)
        gamma = self.disagreement(apart).to(base.dtype)
        mixed = torch.einsum("inl,ilnd->ind", weights.to(single.dtype), single)
        features = (1 - gamma) * mixed + gamma * base
        return FusionOutput(features=features, weights=weights, aux_loss=self.load_balance(shares, weights))


class Disagreement(nn.Module):
    """``σ(w_d x + b_d)``; both start at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1))
        self.bias = nn.Parameter(torch.empty(1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, apart: Tensor) -> Tensor:
        return (self.weight * apart + self.bias).sigmoid()
