"""``IgvaConfig``: three sub-configs, the fusion by name, and how they are joined."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from .fusion_base import FusionDims
from .fusions import fusion_class
from .vision_ensemble import EnsembleVisionConfig


class IgvaConfig(PreTrainedConfig):
    """Configuration of an IGVA model.

    Raises:
        ValueError: at construction, where the fusion, its options or the pooling do not fit the vision tower.
    """

    model_type = "igva"
    # Plain Auto classes and __post_init__ below: the richer ways to declare sub-configs came after 5.16.
    sub_configs = {"vision_config": AutoConfig, "text_config": AutoConfig, "instruction_config": AutoConfig}  # noqa: RUF012

    vision_config: dict | PreTrainedConfig | None = None  # type: ignore[type-arg]
    text_config: dict | PreTrainedConfig | None = None  # type: ignore[type-arg]
    instruction_config: dict | PreTrainedConfig | None = None  # type: ignore[type-arg]  # None: vectors come from outside

    fusion: str = "igva"  # a name of the table in fusions.py
    fusion_kwargs: dict | None = None  # type: ignore[type-arg]  # that method's own options, checked here

    image_size: int | None = None  # side of the square input in pixels; None: the tower's own
    vision_pool: int = 1  # side of the square of patches averaged into one visual token
    normalize_layers: bool = (
        False  # layer means to mean 0, variance 1 per token: else the largest layers drown the rest
    )
    image_token_id: int = 32000  # the placeholder repeated num_image_tokens times

    projector_hidden_size: int | None = None  # None: the language model's width
    projector_hidden_act: str = "gelu"
    projector_bias: bool = True
    projector_norm: bool = False  # LayerNorm over the fused channels, for towers whose layers differ in scale
    visual_positions: bool = False  # a learnt vector per visual token: where it lies in the picture

    instruction_dim: int | None = None  # E; None: read from instruction_config
    instruction_pooling: str = "mean"  # or "cls": how the sentence encoder pools (its modules.json)
    instruction_normalize: bool = True  # unit length per turn

    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        if self.vision_config is None:
            self.vision_config = {  # CLIP-L/14-336, the paper's tower
                "model_type": "clip_vision_model",
                "hidden_size": 1024,
                "intermediate_size": 4096,
                "num_hidden_layers": 24,
                "num_attention_heads": 16,
                "image_size": 336,
                "patch_size": 14,
                "projection_dim": 768,
            }
        if self.text_config is None:
            self.text_config = {"model_type": "llama"}
        for name in self.sub_configs:
            value = getattr(self, name)
            if isinstance(value, dict):
                setattr(self, name, AutoConfig.for_model(**value))
        self.fusion_kwargs = dict(self.fusion_kwargs or {})
        if self.instruction_dim is None and self.instruction_config is not None:
            self.instruction_dim = self.instruction_config.hidden_size  # type: ignore[union-attr]
        if self.instruction_pooling not in ("mean", "cls"):
            raise ValueError(f"instruction_pooling must be 'mean' or 'cls', not {self.instruction_pooling!r}")
        self.tie_word_embeddings = self.tie_word_embeddings or bool(
            getattr(self.text_config, "tie_word_embeddings", False)
        )
        self._check_pooling()
        fusion_class(self.fusion).config_class.from_kwargs(self.fusion, self.fusion_kwargs)
        super().__post_init__(**kwargs)

    @property
    def vision(self) -> Any:
        """The vision tower's own config (some checkpoints wrap it in a text-and-vision one)."""
        return self.vision_config

    @property
    def input_size(self) -> int:
        """Side of the square image in pixels."""
        return int(self.image_size or self.vision.image_size)

    @property
    def num_patches(self) -> int:
        """Patches the tower sees, before pooling."""
        return (self.input_size // int(self.vision.patch_size)) ** 2

    def _check_pooling(self) -> None:
        if self.vision.model_type == EnsembleVisionConfig.model_type and self.input_size != self.vision.image_size:
            raise ValueError(
                f"image_size {self.image_size} is not that of the ensemble of encoders: leave it out, or build the "
                f"ensemble for it (it has {self.vision.image_size})"
            )
        side = self.input_size // int(self.vision.patch_size)
        if self.vision_pool < 1 or side % self.vision_pool:
            raise ValueError(f"vision_pool {self.vision_pool} does not divide the {side}×{side} grid of patches")

    def fusion_dims(self) -> FusionDims:
        """What the fusion may know of this model."""
        return FusionDims(
            num_layers=int(self.vision.num_hidden_layers),
            vision_dim=int(self.vision.hidden_size),
            num_patches=self.num_patches // self.vision_pool**2,
            instruction_dim=self.instruction_dim,
            text_dim=int(self.text_config.hidden_size),  # type: ignore[union-attr]
            num_text_layers=int(self.text_config.num_hidden_layers),  # type: ignore[union-attr]
        )
