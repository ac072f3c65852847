"""DeepStack (arXiv 2406.04334) as Qwen3-VL has it, on LLaVA's towers: layers enter inside the language model.

Letters: ``I`` images, ``N`` patches, ``D`` vision width, ``H`` language-model width.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from .fusion_base import Fusion, FusionConfig, FusionDims, FusionOutput
from .vision_layers import VisionLayers, resolve_tap, split_layers


@dataclass
class DeepStackConfig(FusionConfig):
    base_layer: int = -2  # what goes in at the bottom
    layers: list[int] | None = None  # added after language-model layers 0, 1, 2, …; default: 6, 12, 18 of 24


class DeepStackFusion(Fusion):
    """The base layer as visual tokens; after language-model layers 0, 1, 2 a shallower layer is added at their places.

    Each has a projector of its own, ``Linear(D→H) ∘ GELU ∘ Linear(D→D) ∘ LayerNorm``; there is no gate, no further
    token, and nothing is added while answers are decoded. Qwen3-VL merges two by two patches first; the patches of
    LLaVA's towers are not merged.
    """

    config_class = DeepStackConfig
    injects = True
    summary = "base tokens; shallower layers are added inside the language model"
    source = "Qwen3-VL 2025, after DeepStack, arXiv 2406.04334"

    def __init__(self, config: DeepStackConfig, dims: FusionDims):
        super().__init__(config, dims)
        # by default the last layers of the first three of IGVA's four groups
        layers = config.layers
        if layers is None:
            layers = [group[-1] for group in split_layers(dims.num_layers, min(4, dims.num_layers))[:-1]]
        if dims.text_dim is None or dims.num_text_layers is None:
            raise ValueError("deepstack adds its layers inside a language model: there is none here")
        if not 1 <= len(layers) <= dims.num_text_layers:
            raise ValueError(f"layers {layers}: the language model has room for 1 to {dims.num_text_layers}")
        self.taps = tuple(resolve_tap([layer], dims.num_layers) for layer in (config.base_layer, *layers))
        self.output_dim = dims.vision_dim
        self.num_tokens = dims.num_patches
        self.projectors = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(dims.vision_dim),
                nn.Linear(dims.vision_dim, dims.vision_dim),
                nn.GELU(),
                nn.Linear(dims.vision_dim, dims.text_dim),
            )
            for _ in layers
        )

    def forward(self, layers: VisionLayers, instruction: Tensor | None) -> FusionOutput:
        injections = {
            number: projector(layers.patches[:, 1 + number])  # (I, N, D) -> (I, N, H)
            for number, projector in enumerate(self.projectors)
        }
        return FusionOutput(features=layers.patches[:, 0], injections=injections)
