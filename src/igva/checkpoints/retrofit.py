"""A LLaVA model of transformers → an IGVA model that answers exactly as it did, and can be trained from there.

IGVA's projector reads ``[base, fused]``. The base half gets LLaVA's own weights, the fused half zeros: whatever the
new allocator says, nothing of it arrives until training moves the zeros. A LLaVA that reads several layers side by side
has as many bases.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoProcessor, LlavaConfig, LlavaForConditionalGeneration
from transformers.utils import cached_file

from igva.checkpoints.official import (
    LOAD_ERRORS,
    TOWER,
    Conversion,
    SentenceEncoder,
    load_sentence_encoder,
    some_names,
)
from igva.ensembles import (
    Source,
    assemble,
    encoder_kind,
    joined,
    load_encoder,
    name_apart,
    pixel_settings,
    read_encoder,
)
from igva.errors import UserError, first_line
from igva.model.configuration_igva import IgvaConfig
from igva.model.fusions import build_fusion
from igva.model.modeling_igva import IgvaForConditionalGeneration
from igva.model.processing_igva import IgvaProcessor
from igva.model.vision_ensemble import EncoderConfig, EnsembleVisionConfig, EnsembleVisionModel
from igva.model.vision_layers import resolve_layer, split_layers
from igva.model_settings import config_of_llava
from igva.untrusted import check_model_folder

# Tower → tokens before the patches. Towers of variable resolution have no fixed number of visual tokens.
PREFIX_TOKENS = {"clip_vision_model": 1, "siglip_vision_model": 0}
DEFAULT_INSTRUCTION_DIM = 768  # all-mpnet-base-v2, the paper's sentence encoder


def retrofit_llava(
    source: str,
    instruction_encoder: str | None = None,
    *,
    instruction_dim: int | None = None,
    num_groups: int = 4,
    add_vision: Sequence[Any] = (),
    **fusion_options: Any,
) -> Conversion:
    """Make an IGVA model of a LLaVA one; its outputs are the same until it is trained.

    Args:
        source: folder or hub id of any ``LlavaForConditionalGeneration``, whatever its language model.
        instruction_encoder: folder or hub id of the sentence encoder. Without it the model takes
            ``instruction_embeds``.
        instruction_dim: their width in that case; default 768.
        num_groups: ``K``, into how many groups the vision tower's layers are split; with ``add_vision`` those of each
            encoder.
        add_vision: further encoders, as ``igva.ensembles.ensemble_config`` takes them: the tower becomes one of several
            encoders, of which LLaVA's is the first.
        fusion_options: further options of the fusion ``igva``; the defaults are the paper's.

    Raises:
        UserError: not a LLaVA, or one whose features IGVA cannot reproduce.
    """
    config = _llava_config(source)
    _refuse_unsupported(source, config, num_groups)
    llava = _load_llava(source, config)
    encoder = load_sentence_encoder(instruction_encoder, llava.dtype) if instruction_encoder else None
    width = _instruction_width(encoder, instruction_dim)
    options = {"num_groups": num_groups, "base_layer": config.vision_feature_layer, **fusion_options}
    tower = None
    if add_vision:
        ensemble = widened_tower(source, config, add_vision)
        options = {**ensemble_options(ensemble, config.vision_feature_layer, num_groups), **fusion_options}
        added = zip(add_vision, ensemble.parts()[1:], strict=True)
        encoders = [load_encoder(Source.of(entry).source, part, llava.dtype) for entry, part in added]
        tower = assemble(ensemble, [llava.model.vision_tower, *encoders], llava.dtype)
    try:
        igva_config = config_of_llava(
            config,
            tower.config if tower else config.vision_config,
            encoder.model.config if encoder else None,
            instruction_dim=width,
            fusion_kwargs=options,
            **(encoder.settings if encoder else {}),
        )
        tensors = _tensors(llava, igva_config, tower)
    except (ValueError, UserError) as error:
        raise UserError(f"{source}: {first_line(error)}") from error
    if encoder is not None:
        tensors |= {f"model.instruction_encoder.{name}": value for name, value in encoder.model.state_dict().items()}
    # Tensors are taken over without a copy.
    model = IgvaForConditionalGeneration.from_pretrained(
        None, config=igva_config, state_dict=tensors, dtype=llava.dtype
    )
    model.generation_config = _generation_config(llava, igva_config.image_token_id)
    notes: list[str] = []
    processor = _processor(source, model, encoder, notes)
    return Conversion(model.eval(), processor, "the allocator and the projector (igva train)", notes)


def widened_tower(source: str, config: LlavaConfig, add_vision: Sequence[Any]) -> EnsembleVisionConfig:
    """The tower of a LLaVA with further encoders beside it; no weights are read.

    LLaVA's own gets its pixels as they always came and gives its layers as they are, on its own grid and of its own
    width: what the others give is brought there. They see the same pixels, already normalised for it.

    Raises:
        UserError: the source has no image processor, or an encoder cannot be one of an ensemble.
    """
    vision = config.vision_config
    layers = list(range(1, vision.num_hidden_layers + 1))
    size, mean, std = pixel_settings(source, source, vision)
    if size != vision.image_size:
        raise UserError(f"{source}: its image processor makes {size} pixels, its tower sees {vision.image_size}")
    own = EncoderConfig(
        name=encoder_kind(vision),
        config=vision.to_dict(),
        layers=layers,
        image_size=size,
        image_mean=[0.0] * 3,
        image_std=[1.0] * 3,
        patches=size // vision.patch_size,
        plain=layers,
    )
    sources = [Source.of(entry) for entry in add_vision]
    parts = [own, *(read_encoder(added).part for added in sources)]
    name_apart(parts, [own.name, *(added.name for added in sources)])
    for part in parts[1:]:
        # x = p · std + mean are pixels from 0 to 1, p those that come.
        part.image_mean = [(m - a) / s for m, a, s in zip(part.image_mean, mean, std, strict=True)]
        part.image_std = [own_std / s for own_std, s in zip(part.image_std, std, strict=True)]
    return joined(parts, vision.hidden_size, size // vision.patch_size, size)


def ensemble_options(ensemble: EnsembleVisionConfig, base_layer: int | list[int], num_groups: int) -> dict[str, Any]:
    """Options of the fusion: LLaVA's layer, or layers, as the base, and groups none of which spans two encoders.

    Raises:
        UserError: there is no such base layer, or an encoder has fewer layers than groups.
    """
    parts = ensemble.parts()
    groups: list[list[int]] = []
    for part, before in zip(parts, itertools.accumulate((len(p.layers) for p in parts), initial=0), strict=False):
        try:
            split = split_layers(len(part.layers), num_groups)
        except ValueError as error:
            raise UserError(f"encoder {part.name}: {error}: choose a smaller --num-groups") from error
        groups += [[before + layer for layer in group] for group in split]
    try:
        several = [base_layer] if isinstance(base_layer, int) else base_layer
        bases = [resolve_layer(layer, len(parts[0].layers)) for layer in several]
    except ValueError as error:
        raise UserError(str(error)) from error
    if 0 in bases:
        raise UserError("a LLaVA that reads what enters its tower's first layer cannot get a further encoder")
    return {"groups": groups, "base_layer": bases[0] if isinstance(base_layer, int) else bases}


def _llava_config(source: str) -> LlavaConfig:
    if Path(source).exists():
        check_model_folder(Path(source))
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{source} cannot be loaded: {first_line(error)}") from error
    if not isinstance(config, LlavaConfig):
        raise UserError(
            f"{source} is a {config.model_type}, not a llava: convert a LlavaForConditionalGeneration checkpoint "
            "(checkpoints of the published IGVA code: `igva convert official`)"
        )
    return config


def _refuse_unsupported(source: str, config: Any, num_groups: int) -> None:
    """Raise ``UserError`` where the model would not answer as its source does."""
    tower, layer = config.vision_config.model_type, config.vision_feature_layer
    strategy = config.vision_feature_select_strategy
    if tower not in PREFIX_TOKENS:
        raise UserError(
            f"{source}: the vision tower {tower} is not supported: convert a LLaVA with {' or '.join(PREFIX_TOKENS)}"
        )
    if not isinstance(layer, int) and not layer:
        raise UserError(f"{source}: vision_feature_layer is empty: name the layer it reads in its config.json")
    if strategy == "full" and PREFIX_TOKENS[tower]:
        raise UserError(
            f"{source}: vision_feature_select_strategy 'full' keeps the CLS token of {tower} as a visual token: "
            "convert a LLaVA with 'default'"
        )
    if strategy == "default" and not PREFIX_TOKENS[tower]:
        raise UserError(
            f"{source}: vision_feature_select_strategy 'default' drops a patch, for {tower} has no CLS token: "
            "convert a LLaVA with 'full'"
        )
    layers = config.vision_config.num_hidden_layers
    try:
        for number in [layer] if isinstance(layer, int) else layer:
            resolve_layer(number, layers)
    except ValueError as error:
        raise UserError(f"{source}: vision_feature_layer: {error}") from error
    if not 1 <= num_groups <= layers:
        raise UserError(
            f"{source}: {layers} vision layers cannot be split into {num_groups} groups: "
            f"choose --num-groups from 1 to {layers}"
        )
    if getattr(config, "quantization_config", None) is not None:
        raise UserError(f"{source} is quantized: convert the checkpoint it was made from")


def _load_llava(source: str, config: LlavaConfig) -> Any:
    try:
        llava, report = LlavaForConditionalGeneration.from_pretrained(
            source, config=config, dtype="auto", use_safetensors=True, output_loading_info=True
        )
    except LOAD_ERRORS as error:
        raise UserError(f"{source} cannot be loaded: {first_line(error)}") from error
    for kind, what in (("missing_keys", "lacks the weights"), ("unexpected_keys", "holds weights without a place:")):
        if report[kind]:
            raise UserError(f"{source} {what} {some_names(report[kind])}")
    return llava


def _instruction_width(encoder: SentenceEncoder | None, given: int | None) -> int:
    if encoder is None:
        return DEFAULT_INSTRUCTION_DIM if given is None else given
    width = int(encoder.model.config.hidden_size)
    if given not in (None, width):
        raise UserError(
            f"--instruction-dim {given} contradicts --instruction-encoder, which gives {width}: leave it out"
        )
    return width


def _tensors(llava: Any, config: IgvaConfig, tower: EnsembleVisionModel | None) -> dict[str, Tensor]:
    """LLaVA's weights under our names, its projector widened by zeros, and a freshly drawn fusion.

    Where there is a ``tower`` it holds LLaVA's, and takes its place.

    The fusion is the same each time: the same source gives the same files.
    """
    tensors = {
        name.replace("model.multi_modal_projector.", "model.projector."): tensor
        for name, tensor in llava.state_dict().items()
        if tower is None or not name.startswith(TOWER)
    }
    if tower is not None:
        tensors |= {f"{TOWER}{name}": tensor for name, tensor in tower.state_dict().items()}
    old = tensors["model.projector.linear_1.weight"]  # (H, D), its columns are the base layers' channels: D for each
    fused = old.new_zeros(len(old), config.vision.hidden_size)
    tensors["model.projector.linear_1.weight"] = torch.cat([old, fused], dim=1)  # (H, 2D)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        fusion = build_fusion(config.fusion, config.fusion_kwargs or {}, config.fusion_dims())
    return tensors | {f"model.fusion.{name}": value for name, value in fusion.state_dict().items()}


def _generation_config(llava: Any, image_token_id: int) -> Any:
    """The source's settings, never emitting an image placeholder."""
    settings = llava.generation_config
    settings.suppress_tokens = sorted({*(settings.suppress_tokens or []), image_token_id})
    if not settings.do_sample:  # Vicuna's checkpoints carry both; transformers refuses to save that
        settings.temperature = settings.top_p = settings.top_k = None
    return settings


def _processor(
    source: str, model: IgvaForConditionalGeneration, encoder: SentenceEncoder | None, notes: list[str]
) -> IgvaProcessor | None:
    """The source's tokenizer, image processor and chat template; None where it lacks one of the first two."""
    if not (_has(source, "tokenizer_config.json", "tokenizer.json")):
        notes.append("no tokenizer in the source, so no processor: put its files there and convert again")
        return None
    if not _has(source, "preprocessor_config.json", "processor_config.json"):
        notes.append("no preprocessor_config.json in the source, so no processor: put one there and convert again")
        return None
    try:
        llava = AutoProcessor.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"the processor of {source} cannot be loaded: {first_line(error)}") from error
    tokenizer, image_token_id = llava.tokenizer, model.config.image_token_id
    image_token = tokenizer.convert_ids_to_tokens(image_token_id)
    if image_token is None:
        raise UserError(
            f"the tokenizer of {source} has no token {image_token_id}, which its configuration calls the image"
        )
    tokenizer.padding_side = "left"  # generation in batches; training pads on the right by itself
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return IgvaProcessor(
        llava.image_processor,
        tokenizer,
        encoder.tokenizer if encoder else None,
        chat_template=llava.chat_template or tokenizer.chat_template,
        image_token=image_token,
        num_image_tokens=model.model.fusion.num_tokens,
        pad_images=False,  # what reaches the tower is to be identical too
    )


def _has(source: str, *names: str) -> bool:
    return any(cached_file(source, name, _raise_exceptions_for_missing_entries=False) for name in names)
