"""The two-layer projector from fused vision features to the language model's width."""

from __future__ import annotations

from torch import Tensor, nn
from transformers.activations import ACT2FN

from .configuration_igva import IgvaConfig
from .fusion_base import Fusion
from .visual_positions import VisualPositions


class Projector(nn.Module):
    """``[LayerNorm →] Linear(D'→hidden) → GELU → Linear(hidden→H)``, LLaVA-1.5's ``mlp2x_gelu``.

    The optional LayerNorm is for towers whose layers differ in scale by orders of magnitude (DINOv2: 40×).

    Args:
        places: visual tokens that get a position each, or 0 for none.
    """

    def __init__(
        self, input_dim: int, hidden_dim: int, output_dim: int, act: str, bias: bool, norm: bool, places: int = 0
    ):
        super().__init__()
        self.norm = nn.LayerNorm(input_dim) if norm else None
        self.linear_1 = nn.Linear(input_dim, hidden_dim, bias=bias)
        self.act = ACT2FN[act]
        self.linear_2 = nn.Linear(hidden_dim, output_dim, bias=bias)
        self.positions = VisualPositions(places, output_dim) if places else None

    def forward(self, features: Tensor) -> Tensor:
        """``(I, N', D')`` → ``(I, N', H)``."""
        tokens = self.project(features)
        return tokens if self.positions is None else self.positions(tokens)

    def project(self, features: Tensor) -> Tensor:
        """What each token shows, wherever it lies: ``(I, N', D')`` → ``(I, N', H)``."""
        if self.norm is not None:
            features = self.norm(features)
        out: Tensor = self.linear_2(self.act(self.linear_1(features)))
        return out


def build_projector(config: IgvaConfig, fusion: Fusion) -> Projector:
    """The projector of a config, for the features of its fusion."""
    text_width = config.text_config.hidden_size  # type: ignore[union-attr]
    return Projector(
        fusion.output_dim,
        config.projector_hidden_size or text_width,
        text_width,
        act=config.projector_hidden_act,
        bias=config.projector_bias,
        norm=config.projector_norm,
        places=fusion.num_tokens if config.visual_positions else 0,
    )
