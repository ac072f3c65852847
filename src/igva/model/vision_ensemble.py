"""A vision tower of several encoders: their layers on one grid and of one width, as if they were those of one encoder.

Letters: ``I`` images, ``C`` an encoder's own width, ``D`` the common width, ``N`` cells of the grid, ``h``, ``w`` the
height and width of an encoder's map, ``V`` classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from .efficientnet_lite import EfficientNetLiteConfig, EfficientNetLiteModel
from .vision_layers import position_arguments, run_tower


@dataclass
class EncoderConfig:
    """One encoder of the ensemble.

    Attributes:
        name: what its layers are called: ``dinov2.11``.
        config: of the encoder itself, as a dict with its ``model_type``.
        layers: the hidden states it contributes, from 1 to its number of layers.
        image_size: side of the square it is given, in pixels.
        image_mean, image_std: that its pixels are normalised by, on a scale of 0 to 1.
        patches: to the side of a transformer's own grid; None for encoders that give maps (convolutional, timm's).
        layer_names: layer, as text → what it is called instead of its number.
        plain: layers that pass as they are; the others are brought to mean 0 and variance 1 over their channels.
        stack: layer, as text → how many places to the side of a cell are put beside each other in the channels.
            Of other layers they are averaged.
        sizes: channels of each of the layers; None where the encoder's config says it.
    """

    name: str
    config: dict[str, Any]
    layers: list[int]
    image_size: int
    image_mean: list[float]
    image_std: list[float]
    patches: int | None = None
    layer_names: dict[str, str] = field(default_factory=dict)
    plain: list[int] = field(default_factory=list)
    stack: dict[str, int] = field(default_factory=dict)
    sizes: list[int] | None = None


class EnsembleVisionConfig(PreTrainedConfig):
    """Configuration of ``EnsembleVisionModel``.

    Raises:
        ValueError: at construction, where a name stands twice, a layer does not exist, or the grid does not fit.
    """

    model_type = "vision_ensemble"

    encoders: list | None = None  # type: ignore[type-arg]  # the fields of EncoderConfig, as dicts
    hidden_size: int = 384  # D
    grid: int = 8  # side of the common grid: N is its square
    image_size: int = 256  # side of the square input in pixels; each encoder resizes its own

    def __post_init__(self, **kwargs: Any) -> None:
        self.encoders = list(self.encoders or [])
        names = [part.name for part in self.parts()]
        if len(set(names)) < len(names):
            raise ValueError(f"two encoders of an ensemble have the same name: {', '.join(names)}")
        for part in self.parts():
            check_encoder(part)
        # Other code divides the input by a cell's side, rounded down, and must come upon the grid.
        if self.grid < 1 or self.grid > self.image_size or self.image_size // self.patch_size != self.grid:
            raise ValueError(f"a grid of {self.grid}×{self.grid} cells does not fit an image_size of {self.image_size}")
        super().__post_init__(**kwargs)

    def parts(self) -> list[EncoderConfig]:
        """The encoders, typed."""
        return [EncoderConfig(**encoder) for encoder in self.encoders or []]

    @property
    def num_hidden_layers(self) -> int:
        """Layers of all encoders together."""
        return sum(len(part.layers) for part in self.parts())

    @property
    def patch_size(self) -> int:
        """Pixels of the input to a cell's side."""
        return self.image_size // self.grid

    @property
    def layer_names(self) -> list[str]:
        """What people call each layer, the first first: ``dinov2.11``, ``efficientnet.words``."""
        return [f"{part.name}.{part.layer_names.get(str(n), n)}" for part in self.parts() for n in part.layers]

    def beside_weights(self) -> list[dict[str, Any]]:
        """What the layers depend on and the weights do not show: which they are, and what pixels each encoder gets."""
        return [{name: value for name, value in asdict(part).items() if name != "config"} for part in self.parts()]


def check_encoder(part: EncoderConfig) -> None:
    """Raise ``ValueError`` where an encoder cannot give what is asked of it, as far as its config says."""
    name, layers = f"encoder {part.name}", part.layers
    if not layers:
        raise ValueError(f"{name} contributes no layer: name one, or leave the encoder out")
    if len(set(layers)) < len(layers):
        raise ValueError(f"{name} names a layer twice: {layers}")
    depth = encoder_depth(part)
    for layer in layers:
        if not 1 <= layer <= depth:
            raise ValueError(f"{name} has no layer {layer}: choose from 1 to {depth}")
    if part.patches is not None:
        side = part.image_size // int(AutoConfig.for_model(**part.config).patch_size)
        if part.patches != side:
            raise ValueError(f"{name} sees {side}×{side} patches at image_size {part.image_size}, not {part.patches}")


def encoder_depth(part: EncoderConfig) -> int:
    """How many layers an encoder has after its embedding or stem, as far as its config says."""
    config = AutoConfig.for_model(**part.config)
    depth = getattr(config, "num_hidden_layers", None) or len(getattr(config, "depths", None) or ())
    return int(depth or max(part.layers))  # timm's configs do not say


def first_map(config: Any) -> int:
    """The layer that is an encoder's first map: 0, what it calls stem or embedding; timm's models leave that out."""
    return 1 if config.model_type == "timm_wrapper" else 0


class EnsembleVisionModel(PreTrainedModel):
    """Several encoders in one. An encoder none of whose layers is asked for does not run.

    Every layer's tokens ``(I, 1+N, D)`` pass through its entry of ``layers``: what reads other towers by hooks on
    their blocks reads this one. The first token is the encoder's CLS, else the mean of its map. Hidden state 0, what
    enters the first entry, is layer 1 itself.
    """

    config_class = EnsembleVisionConfig
    base_model_prefix = "vision_ensemble"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(self, config: EnsembleVisionConfig):
        super().__init__(config)
        self.parts = config.parts()
        # First, so that it is found before a list of the same length inside an encoder.
        self.layers = nn.ModuleList([nn.Identity() for _ in range(config.num_hidden_layers)])
        # In the type this model is made in: an encoder's own config may name the one its checkpoint has.
        dtype = torch.get_default_dtype()
        self.encoders = nn.ModuleList(
            [AutoModel.from_config(AutoConfig.for_model(**part.config), dtype=dtype) for part in self.parts]
        )
        self.adapters = make_adapters(config, self.encoders)
        self.post_init()
        # What must stay whole when a model is spread over devices; transformers asks direct children only.
        self._no_split_modules = {
            name for encoder in self.encoders for name in getattr(encoder, "_no_split_modules", None) or ()
        }

    def forward(self, pixel_values: Tensor, layers: Sequence[int] | None = None, **kwargs: Any) -> BaseModelOutput:
        """Run the encoders whose layers are wanted.

        Args:
            pixel_values: ``(I, 3, height, width)``, on a scale of 0 to 1, not normalised.
            layers: the wanted ones, counted over all encoders from 1 (0 is 1); default: all.

        Returns:
            The last of the wanted layers as ``last_hidden_state (I, 1+N, D)``.
        """
        count = len(self.layers)
        wanted = sorted({max(1, layer) for layer in layers} if layers is not None else range(1, count + 1))
        tokens, before = None, 0
        for part, encoder in zip(self.parts, self.encoders, strict=True):
            indices = [number - 1 for number in wanted if before < number <= before + len(part.layers)]
            own = [part.layers[index - before] for index in indices]
            before += len(part.layers)
            if not own:
                continue
            pixels = prepare_pixels(pixel_values, part)
            for index, (maps, prefix) in zip(indices, read_layers(encoder, part, pixels, own), strict=True):
                tokens = self.layers[index](self.adapters[index](maps, prefix))
        return BaseModelOutput(last_hidden_state=tokens)

    def set_attn_implementation(self, attn_implementation: Any, **kwargs: Any) -> None:
        """As of any model; older transformers do not pass it on to encoders that are no part of the config."""
        super().set_attn_implementation(attn_implementation, **kwargs)
        encoders: Iterable[Any] = self.encoders
        for part, encoder in zip(self.parts, encoders, strict=True):
            if part.patches is not None:  # the others do not attend
                encoder.set_attn_implementation(attn_implementation, **kwargs)

    def words_layer(self) -> tuple[int, Tensor] | None:
        """The layer in which a classifier says what it sees, and what stands there for each class seen with certainty.

        Returns:
            Its number, and ``(V, D)``; None where no encoder has such a layer.
        """
        before = 0
        encoders: Iterable[Any] = self.encoders
        for part, encoder in zip(self.parts, encoders, strict=True):
            words = getattr(encoder, "words", None)
            if words is not None and (last := encoder.config.num_hidden_layers) in part.layers:
                index = before + part.layers.index(last)
                adapter: Any = self.adapters[index]
                return index + 1, adapter.fit(words.vectors)
            before += len(part.layers)
        return None


class LayerAdapter(nn.Module):
    """One layer onto the common grid and width: averaged or stacked, normalised, turned by a fixed matrix.

    Args:
        size: ``C``.
        width: ``D``.
        grid: cells to a side.

    Attributes:
        matrix: ``(D, C')``, kept with the checkpoint; None where the width is right. It starts orthonormal.
    """

    matrix: Tensor | None

    def __init__(self, size: int, width: int, grid: int, part: EncoderConfig, layer: int):
        super().__init__()
        self.grid = grid
        self.plain = layer in part.plain
        self.stack = part.stack.get(str(layer), 1)
        size *= self.stack**2
        self.register_buffer("matrix", None if size == width else orthonormal(width, size, seed=layer))

    def forward(self, maps: Tensor, prefix: Tensor) -> Tensor:
        """Map ``(I, C, h, w)`` and prefix ``(I, C)`` → ``(I, 1+N, D)``."""
        side = self.grid * self.stack
        if maps.shape[-2:] != (side, side):
            maps = nn.functional.adaptive_avg_pool2d(maps, side)
        cells = nn.functional.pixel_unshuffle(maps, self.stack).flatten(2).transpose(1, 2)  # (I, N, C')
        return self.fit(torch.cat([prefix.repeat_interleave(self.stack**2, dim=1)[:, None], cells], dim=1))

    def fit(self, tokens: Tensor) -> Tensor:
        """``(…, C')`` → ``(…, D)``."""
        if not self.plain:
            tokens = nn.functional.layer_norm(tokens, tokens.shape[-1:])
        return tokens if self.matrix is None else tokens @ self.matrix.T.to(tokens.dtype)


def make_adapters(config: EnsembleVisionConfig, encoders: Iterable[Any]) -> nn.ModuleList:
    """One ``LayerAdapter`` per layer, the first first, with matrices as they start."""
    return nn.ModuleList(
        [
            LayerAdapter(width, config.hidden_size, config.grid, part, layer)
            for part, encoder in zip(config.parts(), encoders, strict=True)
            for layer, width in zip(part.layers, layer_widths(encoder, part), strict=True)
        ]
    )


def orthonormal(rows: int, columns: int, seed: int) -> Tensor:
    """A random matrix ``(rows, columns)`` whose shorter side is orthonormal; the same for the same seed."""
    device = torch.get_default_device()  # where a model is made; it may stay there
    if device.type == "meta":  # without weights, or about to get them
        return torch.empty(rows, columns)
    generator = torch.Generator(device="cpu").manual_seed(seed)
    shape = max(rows, columns), min(rows, columns)
    # Not in the default type, which is what a model is loaded in: there is no decomposition in half precision.
    turn = torch.linalg.qr(torch.randn(shape, generator=generator, device="cpu", dtype=torch.float32)).Q
    return (turn if rows >= columns else turn.T.contiguous()).to(device, torch.get_default_dtype())


def layer_widths(encoder: Any, part: EncoderConfig) -> list[int]:
    """``C`` of each layer that an encoder contributes."""
    if part.sizes is not None:
        return part.sizes
    # Asked by its kind: of a class that came with a checkpoint's code there may be two copies.
    if encoder.config.model_type == EfficientNetLiteConfig.model_type:
        return [encoder.config.layer_sizes[layer] for layer in part.layers]
    return [int(encoder.config.hidden_size)] * len(part.layers)


def prepare_pixels(pixel_values: Tensor, part: EncoderConfig) -> Tensor:
    """Pixels from 0 to 1 as an encoder wants them: ``(I, 3, height, width)`` → ``(I, 3, its size, its size)``."""
    pixels = pixel_values.float()  # the smoothed resize is not made for half precision on a CPU
    size = (part.image_size, part.image_size)
    if pixels.shape[-2:] != size:
        pixels = nn.functional.interpolate(pixels, size, mode="bilinear", antialias=True, align_corners=False)
    mean, std = (pixels.new_tensor(values)[:, None, None] for values in (part.image_mean, part.image_std))
    return ((pixels - mean) / std).to(pixel_values.dtype)


def read_layers(
    encoder: Any, part: EncoderConfig, pixels: Tensor, layers: Sequence[int]
) -> list[tuple[Tensor, Tensor]]:
    """Run one encoder: for each of the layers its map ``(I, C, h, w)`` and its prefix ``(I, C)``."""
    if part.patches is None:
        states = encoder(pixels, output_hidden_states=True).hidden_states
        maps_of_layers = [states[layer - first_map(encoder.config)] for layer in layers]
        return [(maps, maps.mean(dim=(2, 3))) for maps in maps_of_layers]
    config = encoder.config
    read = run_tower(
        encoder,
        pixels,
        [(layer,) for layer in layers],
        num_layers=config.num_hidden_layers,
        num_patches=part.patches**2,
        **position_arguments(config, part.image_size),
    )
    maps = read.patches.transpose(2, 3).unflatten(3, (part.patches, part.patches))  # (I, layers, C, h, w)
    return list(zip(maps.unbind(1), read.descriptors.unbind(1), strict=True))


# Here rather than beside igva's other classes: code that a checkpoint carries to a hub comes without that file.
AutoConfig.register(EfficientNetLiteConfig.model_type, EfficientNetLiteConfig, exist_ok=True)
AutoModel.register(EfficientNetLiteConfig, EfficientNetLiteModel, exist_ok=True)
AutoConfig.register(EnsembleVisionConfig.model_type, EnsembleVisionConfig, exist_ok=True)
AutoModel.register(EnsembleVisionConfig, EnsembleVisionModel, exist_ok=True)
