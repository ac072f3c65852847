"""Several vision encoders → one tower: which layers of each, on which grid, and what pictures they are given.

Configurations alone are read until weights are asked for, so that planning costs nothing.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel
from transformers.models.auto.image_processing_auto import AutoImageProcessor  # by this name: no torchvision asked

from igva.errors import UserError, first_line
from igva.model.efficientnet_lite import EfficientNetLiteConfig
from igva.model.vision_ensemble import (
    EncoderConfig,
    EnsembleVisionConfig,
    EnsembleVisionModel,
    encoder_depth,
    first_map,
    make_adapters,
)
from igva.model.vision_layers import resolve_layer
from igva.part_sources import load_vision_tower, resolve_part
from igva.parts.efficientnet import MEAN, STD
from igva.timm_models import TIMM, check_timm, load_timm, timm_settings


@dataclass(frozen=True)
class Source:
    """One encoder as it is asked for.

    Attributes:
        source: folder, hub id, ``embedded:dinov2``, ``embedded:efficientnet`` or ``timm:NAME``.
        name: what its layers are called; default: its kind, made distinct.
        layers: the hidden states it contributes, from 1, or from -1 backwards; default: all.
        image_size: side of the square it is given; default: its image processor's.
    """

    source: str
    name: str | None = None
    layers: list[int] | None = None
    image_size: int | None = None

    @classmethod
    def of(cls, entry: Any) -> Source:
        """From a source alone, or a mapping of these attributes; raises ``UserError`` for anything else."""
        if isinstance(entry, (str, Path)):
            return cls(str(entry))
        fields = {field.name: field for field in dataclasses.fields(cls)}
        if not isinstance(entry, Mapping) or not entry.get("source"):
            raise UserError(f"{entry!r} names no encoder: give a folder or hub id, or a mapping with source: in it")
        for key in entry:
            if key not in fields:
                near = difflib.get_close_matches(str(key), fields, n=1)
                remedy = f"did you mean {near[0]}?" if near else f"it takes {', '.join(fields)}"
                raise UserError(f"encoder {entry['source']} takes no setting {key!r}: {remedy}")
        source = cls(**{**entry, "source": str(entry["source"])})
        if source.layers is not None and not _whole_numbers(source.layers):
            raise UserError(f"layers of {source.source} is {source.layers!r}: a list of whole numbers is expected")
        if source.image_size is not None and not _whole_numbers([source.image_size]):
            raise UserError(f"image_size of {source.source} is {source.image_size!r}: a whole number is expected")
        return source


def _whole_numbers(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int for value in values)


@dataclass
class Encoder:
    """What is known of an encoder without its weights.

    Attributes:
        side: places to the side of its own map, of the last one where they differ.
        finest: of the finest map among its layers.
        width: of the widest.
    """

    part: EncoderConfig
    side: int
    finest: int
    width: int


def ensemble_config(entries: Sequence[Any], grid: int | None = None) -> EnsembleVisionConfig:
    """The configuration of a tower of several encoders.

    Its width is that of the widest layer, its input as large as the largest of the encoders'.

    Args:
        entries: sources of encoders, or mappings with the attributes of ``Source``.
        grid: cells to the side of the common grid; default: the first encoder's own.

    Raises:
        UserError: an encoder cannot be read or cannot be one of an ensemble, or the grid does not fit.
    """
    if not entries:
        raise UserError("vision is an empty list: name at least one encoder")
    sources = [Source.of(entry) for entry in entries]
    encoders = [read_encoder(source) for source in sources]
    name_apart([encoder.part for encoder in encoders], [source.name for source in sources])
    grid = encoders[0].side if grid is None else grid
    finest = max(encoder.finest for encoder in encoders)
    if not 1 <= grid <= finest:
        raise UserError(f"vision_grid {grid} does not fit: choose from 1 to {finest}, the finest of the encoders' own")
    size = max(grid, *(encoder.part.image_size for encoder in encoders))
    while size // (size // grid) != grid:  # the tower's patch size is a whole number of pixels
        size += 1
    return joined([encoder.part for encoder in encoders], max(e.width for e in encoders), grid, size)


def joined(parts: Sequence[EncoderConfig], width: int, grid: int, image_size: int) -> EnsembleVisionConfig:
    """The configuration of these encoders together; raises ``UserError`` where they do not fit."""
    encoders = [dataclasses.asdict(part) for part in parts]
    try:
        return EnsembleVisionConfig(encoders=encoders, hidden_size=width, grid=grid, image_size=image_size)
    except ValueError as error:
        raise UserError(first_line(error)) from error


def name_apart(parts: Sequence[EncoderConfig], given: Sequence[str | None]) -> None:
    """Name encoders as asked, and the others by their kind, with a number where that is taken."""
    taken = {name for name in given if name}
    for part, name in zip(parts, given, strict=True):
        kind, number = part.name, 1
        while not name and part.name in taken:
            number += 1
            part.name = f"{kind}_{number}"
        part.name = name or part.name
        taken.add(part.name)


# --- one encoder --------------------------------------------------------------------------------------------------


def read_encoder(source: Source) -> Encoder:
    """Read an encoder's configuration and what its image processor does to pixels.

    Raises:
        UserError: either is missing, or it cannot be one of an ensemble.
    """
    where = source.source
    if where.startswith(TIMM):
        config, size, mean, std = timm_settings(where, source.image_size)
    else:
        folder = resolve_part(where)
        config = _read_config(where, folder)
        size, mean, std = pixel_settings(where, folder, config, source.image_size)
    part = EncoderConfig(
        name=encoder_kind(config),
        config=config.to_dict(),
        layers=[1],
        image_size=size,
        image_mean=mean,
        image_std=std,
        patches=_patches(where, config, size),
    )
    maps = _maps(where, part) if part.patches is None else None
    depth = len(maps) if maps else encoder_depth(part)
    part.layers = list(range(1, depth + 1)) if source.layers is None else _resolved(where, source.layers, depth)
    if maps is None:
        patches = part.patches or 0
        return Encoder(part, patches, patches, int(config.hidden_size))
    chosen = [maps[layer - 1] for layer in part.layers]
    part.sizes = [channels for channels, _ in chosen]
    return Encoder(part, maps[-1][1], max(side for _, side in chosen), max(part.sizes))


def _read_config(where: str, folder: str) -> Any:
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise UserError(f"the configuration of {where} cannot be read: {first_line(error)}") from error
    config = getattr(config, "vision_config", config)
    if isinstance(config, EnsembleVisionConfig):
        raise UserError(f"{where} is a tower of several encoders itself: name these encoders instead of it")
    if config.model_type == "timm_wrapper":
        check_timm(where)
    return config


def encoder_kind(config: Any) -> str:
    """What an encoder is called where nobody names it."""
    if config.model_type == "timm_wrapper":
        return str(config.architecture).partition(".")[0]
    return str(config.model_type).removesuffix("_model").removesuffix("_vision")


def _patches(where: str, config: Any, size: int) -> int | None:
    """Patches to the side of a transformer's grid; None for encoders that give maps."""
    patch = getattr(config, "patch_size", None)
    if not isinstance(patch, int) or not hasattr(config, "num_hidden_layers") or getattr(config, "depths", None):
        return None
    if not isinstance(getattr(config, "image_size", None), int):
        raise UserError(
            f"{where} is a {config.model_type}, which sees pictures of any shape: name an encoder of fixed input size"
        )
    if size < patch:
        raise UserError(f"image_size {size} of {where} is less than one of its patches, {patch} pixels: raise it")
    return size // patch


def _maps(where: str, part: EncoderConfig) -> list[tuple[int, int]]:
    """Channels and side of each map, layer 1 first, found by a run without the weights."""
    config = AutoConfig.for_model(**part.config)
    # timm computes with values while it makes a model, so that one is made whole.
    device = "cpu" if config.model_type == "timm_wrapper" else "meta"
    try:
        with torch.device(device), torch.no_grad():
            encoder = AutoModel.from_config(config).eval()
            picture = torch.zeros(1, 3, part.image_size, part.image_size)
            states = encoder(picture, output_hidden_states=True).hidden_states[1 - first_map(config) :]
    except Exception as error:  # whatever another model's forward pass may raise
        raise UserError(f"{where} cannot be an encoder of an ensemble: {first_line(error)}") from error
    if wrong := [tuple(state.shape) for state in states if state.dim() != 4 or state.shape[2] != state.shape[3]]:
        raise UserError(
            f"{where} cannot be an encoder of an ensemble: a {config.model_type} gives {wrong[0]}, "
            "not maps (images, channels, side, side)"
        )
    return [(state.shape[1], state.shape[2]) for state in states]


def _resolved(where: str, layers: Sequence[int], depth: int) -> list[int]:
    try:
        numbers = [resolve_layer(layer, depth) for layer in layers]
    except ValueError:
        numbers = [0]
    if 0 in numbers:
        raise UserError(f"layers of {where} are {list(layers)}: choose from 1 to {depth}, or -1 to {-depth}")
    return numbers


def pixel_settings(
    where: str, folder: str, config: Any, image_size: int | None = None
) -> tuple[int, list[float], list[float]]:
    """How an encoder's image processor prepares pictures.

    Args:
        image_size: instead of the processor's own.

    Returns:
        The side of the square, and what pixels from 0 to 1 are normalised by, mean and standard deviation.

    Raises:
        UserError: there is no image processor.
    """
    if isinstance(config, EfficientNetLiteConfig):  # its published weights come without one
        return image_size or config.image_size, [MEAN] * 3, [STD] * 3
    try:
        processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise UserError(
            f"{where} has no image processor: put the preprocessor_config.json of its checkpoint beside its weights"
        ) from error
    if data := getattr(processor, "data_config", None):  # timm's
        return image_size or int(data["input_size"][-1]), list(data["mean"]), list(data["std"])
    settings = processor.to_dict()
    cropped = settings.get("crop_size") if settings.get("do_center_crop") else None
    sides = {**(settings.get("size") or {}), **(cropped or {})}
    size = image_size or sides.get("height") or sides.get("shortest_edge") or getattr(config, "image_size", None)
    if not isinstance(size, int):
        raise UserError(f"the image processor of {where} names no size: set image_size beside its source")
    mean, std = [0.0] * 3, [1.0] * 3
    if settings.get("do_normalize", True):
        mean, std = list(processor.image_mean), list(processor.image_std)
    scale = 255 * settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 255.0
    return size, [value / scale for value in mean], [value / scale for value in std]


# --- the tower ----------------------------------------------------------------------------------------------------


def load_ensemble(
    entries: Sequence[Any], grid: int | None = None, dtype: torch.dtype = torch.float32
) -> EnsembleVisionModel:
    """The tower of several encoders with their weights; arguments and errors as for ``ensemble_config``."""
    config = ensemble_config(entries, grid)
    sources = [Source.of(entry).source for entry in entries]
    encoders = [load_encoder(where, part, dtype) for where, part in zip(sources, config.parts(), strict=True)]
    return assemble(config, encoders, dtype)


def load_encoder(where: str, part: EncoderConfig, dtype: torch.dtype) -> Any:
    """One encoder with its weights."""
    if where.startswith(TIMM):
        return load_timm(where, AutoConfig.for_model(**part.config)).to(dtype)
    return load_vision_tower(resolve_part(where), dtype)


def assemble(config: EnsembleVisionConfig, encoders: Sequence[Any], dtype: torch.dtype) -> EnsembleVisionModel:
    """A tower around existing encoders: nothing of them is held twice."""
    with torch.device("meta"):
        tower = EnsembleVisionModel(config)
    tower.encoders = nn.ModuleList(encoders)
    tower.adapters = make_adapters(config, encoders).to(dtype)
    config.dtype = dtype
    return tower.eval()


def unnormalised_pictures(config: EnsembleVisionConfig) -> Any:
    """The image processor of an ensemble: squares of pixels from 0 to 1, which each encoder normalises itself.

    Its mean, the mean of the encoders', is the colour that pictures are padded with.
    """
    means, stds = ([getattr(part, key) for part in config.parts()] for key in ("image_mean", "image_std"))
    settings = {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"height": config.image_size, "width": config.image_size},
        "resample": 3,  # bicubic
        "do_center_crop": False,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": False,
        "image_mean": [sum(channel) / len(means) for channel in zip(*means, strict=True)],
        "image_std": [sum(channel) / len(stds) for channel in zip(*stds, strict=True)],
    }
    with tempfile.TemporaryDirectory() as folder:  # transformers chooses the class by itself only from a file
        Path(folder, "preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")
        return AutoImageProcessor.from_pretrained(folder, trust_remote_code=False)
