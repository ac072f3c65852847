"""MoL, mixture of layers (arXiv 2610.09440): the question picks a few layers, per picture, per patch, or both.

Letters: ``I`` images, ``L`` encoder layers, ``N`` patches, ``D`` vision width, ``E`` instruction width.

The paper leaves open, and this file chooses: the question is igva's sentence vector (theirs pools CLIP's text encoder);
keys and query are as wide as ``router_dim`` (default: the vision width) and without bias; the layers that are picked
share what remains by renormalising, after the hybrid's mixture and not before; equal shares are picked from the deepest
layer down, which is what an image without a question gets; the load-balance loss counts a layer as used where it is
picked, over the images that were asked about; the temperature divides every score, those that KL compares too, and
falls linearly over ``anneal_steps`` forward passes in training mode; the base layer is also one of those to pick from.

With ``top_k`` 1 the picked share is 1 whatever the scores: the router learns from the load-balance loss alone.
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

    top_k: int = 2  # layers that are kept; the paper has 1 to 4, the best of each benchmark
    router_dim: int | None = None  # None: the vision width
    base_layer: int = -2  # what the hybrid falls back on
    load_balance_coef: float = 0.01  # on how unevenly the layers are used over a batch
    temperature: float = 1.0  # of the softmax over layers, at the end
    start_temperature: float = 2.0  # at the beginning, where anneal_steps is set
    anneal_steps: int = 0  # training steps from one to the other; 0: the end from the start


class Temperature(nn.Module):
    """What scores are divided by; each call in training mode is a step from the start to the end."""

    seen: Tensor

    def __init__(self, config: MolFusionConfig):
        super().__init__()
        self.start, self.end, self.steps = config.start_temperature, config.temperature, config.anneal_steps
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))  # saved: a resumed run goes on where it was

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.seen)

    def forward(self) -> Tensor | float:
        if not self.steps:
            return self.end
        done = (self.seen / self.steps).clamp(max=1)
        if self.training:
            self.seen += 1
        return self.start + (self.end - self.start) * done


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

    def __init__(self, config: MolFusionConfig, dims: FusionDims):
        super().__init__(config, dims)
        assert dims.instruction_dim is not None  # checked by Fusion
        if not 1 <= config.top_k <= dims.num_layers:
            raise ValueError(f"top_k {config.top_k} does not fit {dims.num_layers} layers")
        if min(config.temperature, config.start_temperature) <= 0:
            raise ValueError("temperature and start_temperature must be more than 0")
        if config.router_dim is not None and config.router_dim < 1:
            raise ValueError(f"router_dim {config.router_dim} must be 1 or more, or left out for the vision width")
        self.layer_groups = tuple((layer,) for layer in range(1, dims.num_layers + 1))
        self.taps = (resolve_tap([config.base_layer], dims.num_layers), *self.layer_groups)
        self.output_dim = dims.vision_dim
        self.num_tokens = dims.num_patches
        self.scores = LayerScores(dims.instruction_dim, dims.vision_dim, config.router_dim or dims.vision_dim)
        self.temperature = Temperature(config)

    def shares(self, scores: Tensor) -> Tensor:
        """Softmax over layers, ``(I, L, …)`` → ``(I, …, L)``."""
        return (scores.float() / self.temperature()).softmax(dim=1).movedim(1, -1)

    def pick(self, shares: Tensor) -> Tensor:
        """The ``top_k`` largest shares ``(…, L)``, renormalised; the others are zero. Ties go to the deeper layer."""
        order = shares.flip(-1).sort(dim=-1, descending=True, stable=True).indices
        kept = shares.shape[-1] - 1 - order[..., : self.config.top_k]
        picked = torch.zeros_like(shares).scatter(-1, kept, shares.gather(-1, kept))
        return picked / picked.sum(dim=-1, keepdim=True)

    def load_balance(self, shares: Tensor, picked: Tensor, instruction: Tensor) -> Tensor | None:
        """``L Σ_l f_l P_l`` (Switch, arXiv 2101.03961): f how often a layer is picked, P its mean share.

        Args:
            shares, picked: ``(I, L)`` or ``(I, N, L)``.
            instruction: ``(I, E)``; images that were not asked about, rows of zeros, do not count.
        """
        if not self.config.load_balance_coef:
            return None
        used = (picked > 0).to(shares.dtype) / self.config.top_k
        if shares.dim() == 3:
            shares, used = shares.mean(dim=1), used.mean(dim=1)
        asked = instruction.ne(0).any(dim=-1, keepdim=True)  # (I, 1)
        count = asked.sum().clamp_min(1)
        often, share = (used * asked).sum(dim=0) / count, (shares * asked).sum(dim=0) / count
        return self.config.load_balance_coef * shares.shape[-1] * (often * share).sum()

    def check(self, instruction: Tensor | None) -> Tensor:
        """The instruction; raises ``ValueError`` where there is none."""
        if instruction is None:
            raise ValueError(
                "the mol fusions need an instruction for every image: pass instruction_input_ids or embeds"
            )
        return instruction


class MolLayerFusion(_MolFusion):
    """One set of layers per picture: keys are the layers' mean patches. ``Σ_l w_l h_l``."""

    summary = "the question picks a few layers, per picture"

    def forward(self, layers: VisionLayers, instruction: Tensor | None) -> FusionOutput:
        single = layers.patches[:, 1:]  # (I, L, N, D)
        instruction = self.check(instruction)
        shares = self.shares(self.scores(instruction, single.mean(dim=2)))  # (I, L)
        weights = self.pick(shares)
        features = torch.einsum("il,ilnd->ind", weights.to(single.dtype), single)
        return FusionOutput(
            features=features, weights=weights, aux_loss=self.load_balance(shares, weights, instruction)
        )


class MolPatchFusion(_MolFusion):
    """One set of layers per patch: keys are the patch itself in every layer. ``Σ_l w_nl h_nl``."""

    summary = "the question picks a few layers, per patch"

    def forward(self, layers: VisionLayers, instruction: Tensor | None) -> FusionOutput:
        single = layers.patches[:, 1:]
        instruction = self.check(instruction)
        shares = self.shares(self.scores(instruction, single))  # (I, N, L)
        weights = self.pick(shares)
        features = torch.einsum("inl,ilnd->ind", weights.to(single.dtype), single)
        return FusionOutput(
            features=features, weights=weights, aux_loss=self.load_balance(shares, weights, instruction)
        )


class MolHybridFusion(_MolFusion):
    """Both, mixed geometrically, with a way back to the base layer where they disagree.

    ``q_n ∝ p_g^(1-β) p_n^β`` with ``β = σ(w·s + b)``; ``γ_n = σ(w_d KL(p_n ‖ p_g) + b_d)``;
    ``(1 - γ_n) Σ_topk q_nl h_nl + γ_n h_base``. ``w_d`` and ``b_d`` start at zero, so that γ starts at a half. The
    weights that are told are the picked q: they do not count what γ adds to the base layer.
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
        return FusionOutput(
            features=features, weights=weights, aux_loss=self.load_balance(shares, weights, instruction)
        )


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
