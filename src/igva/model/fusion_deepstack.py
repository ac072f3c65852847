"""DeepStack (arXiv 2406.04334) as Qwen3-VL and Granite 4 Vision have it, on LLaVA's towers: layers enter inside the
language model.

Letters: ``I`` images, ``N`` patches, ``D`` vision width, ``H`` language-model width.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from .fusion_base import Fusion, FusionConfig, FusionDims, FusionOutput
from .vision_layers import Tap, VisionLayers, resolve_tap, split_layers

Route = tuple[int, int]  # vision layer, language-model layer whose input it is added to

# Depth of the vision tower → [vision layer, language-model layer], for maps that shipped models have.
# Qwen3-VL's configs count blocks from 0 and say after which language layer: [8, 16, 24] of 27 after 0, 1, 2.
_QWEN3VL = {27: [[9, 1], [17, 2], [25, 3]], 24: [[6, 1], [12, 2], [18, 3]]}
# Of Granite 4 Vision; it also adds four spatial samples of its last layer, which this fusion does not.
_GRANITE4 = [[-19, 9], [-13, 6], [-7, 3], [-1, 0]]
PRESETS = ("qwen3vl", "granite4")


@dataclass
class DeepStackConfig(FusionConfig):
    base_layer: int = -2  # what goes in at the bottom, where layer_map does not say it
    layers: list[int] | None = None  # enter language-model layers 1, 2, 3, …; default: 6, 12, 18 of 24
    # In place of layers: pairs of vision layer and language-model layer that it enters, 0 for the bottom; or a preset,
    # qwen3vl or granite4.
    layer_map: list[list[int]] | str | None = None

    def routes(self, num_layers: int) -> list[Route]:
        """Where each layer enters, the one at the bottom first.

        Raises:
            ValueError: no such preset, none for this depth, ``layers`` besides, or entries that are no pairs.
        """
        if self.layer_map is None:
            # by default the last layers of the first three of IGVA's four groups
            layers = self.layers
            if layers is None:
                layers = [group[-1] for group in split_layers(num_layers, min(4, num_layers))[:-1]]
            return [(self.base_layer, 0), *((layer, number) for number, layer in enumerate(layers, start=1))]
        if self.layers is not None:
            raise ValueError("layers and layer_map say the same thing twice: leave one of them out")
        routes = [(pair[0], pair[1]) for pair in self._pairs(num_layers)]
        if all(enters != 0 for _, enters in routes):
            routes = [(self.base_layer, 0), *routes]
        return sorted(routes, key=lambda route: route[1])

    def _pairs(self, num_layers: int) -> list[list[int]]:
        if self.layer_map == "granite4":
            return _GRANITE4
        if self.layer_map == "qwen3vl":
            if num_layers not in _QWEN3VL:
                raise ValueError(
                    f"layer_map 'qwen3vl' is known for vision towers of {' and '.join(map(str, sorted(_QWEN3VL)))} "
                    f"layers, not of {num_layers}: give the pairs"
                )
            return _QWEN3VL[num_layers]
        if isinstance(self.layer_map, str):
            raise ValueError(f"there is no layer_map {self.layer_map!r}: {' or '.join(PRESETS)}, or pairs of layers")
        pairs = self.layer_map or []
        if not pairs or any(len(pair) != 2 for pair in pairs):
            raise ValueError(f"layer_map {pairs}: pairs of a vision layer and a language-model layer are expected")
        return pairs


class DeepStackFusion(Fusion):
    """The base layer as visual tokens; further layers are added to what enters language-model layers 1, 2, 3 there.

    Each has a projector of its own, ``Linear(D→H) ∘ GELU ∘ Linear(D→D) ∘ LayerNorm``; there is no gate, no further
    token, and nothing is added while answers are decoded. Qwen3-VL merges two by two patches first, and Granite 4
    Vision has window Q-formers for projectors; the patches of LLaVA's towers are not merged.
    """

    config_class = DeepStackConfig
    injects = True
    summary = "base tokens; shallower layers are added inside the language model"
    source = "Qwen3-VL 2025, after DeepStack, arXiv 2406.04334"

    def __init__(self, config: DeepStackConfig, dims: FusionDims):
        super().__init__(config, dims)
        if dims.text_dim is None or dims.num_text_layers is None:
            raise ValueError("deepstack adds its layers inside a language model: there is none here")
        routes = config.routes(dims.num_layers)
        enters = [number for _, number in routes]
        if len(routes) < 2 or enters[-1] > dims.num_text_layers or enters[0] < 0:
            raise ValueError(
                f"layers enter language-model layers {enters[1:]}: there is room for 1 to {dims.num_text_layers}"
            )
        if len(set(enters)) != len(enters):
            raise ValueError(f"two layers enter the same language-model layer: {enters}")
        self.taps: tuple[Tap, ...] = tuple(resolve_tap([layer], dims.num_layers) for layer, _ in routes)
        self.after = [number - 1 for number in enters[1:]]  # language-model layers after whose output they are added
        self.output_dim = dims.vision_dim
        self.num_tokens = dims.num_patches
        self.projectors = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(dims.vision_dim),
                nn.Linear(dims.vision_dim, dims.vision_dim),
                nn.GELU(),
                nn.Linear(dims.vision_dim, dims.text_dim),
            )
            for _ in self.after
        )

    def forward(self, layers: VisionLayers, instruction: Tensor | None) -> FusionOutput:
        injections = {
            after: projector(layers.patches[:, tap])  # (I, N, D) -> (I, N, H)
            for tap, (after, projector) in enumerate(zip(self.after, self.projectors, strict=True), start=1)
        }
        return FusionOutput(features=layers.patches[:, 0], injections=injections)
