"""A checkpoint of the paper's published code (arXiv 2501.08443) → an IGVA model.

The published code saves LLaVA's layout: a flat ``config.json`` of type ``llava_llama`` and weights named
``model.vision_tower…``, ``model.vision_aggregator…``, ``model.mm_projector…`` beside the language model's own.
Nothing is unpickled, and a weight that has no place, or a place that gets no weight, is an error.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from tqdm import tqdm
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    GenerationConfig,
)

# As in build.py: the top-level name wants torchvision in transformers 5.16.
from transformers.models.auto.image_processing_auto import AutoImageProcessor

from igva.building import (
    IMAGE_TOKEN,
    add_image_token,
    grow_vocabulary,
    sentence_encoder_settings,
    set_generation_config,
)
from igva.data.templates import TEMPLATES
from igva.errors import UserError, first_line
from igva.model.configuration_igva import IgvaConfig
from igva.model.modeling_igva import IgvaForConditionalGeneration
from igva.model.processing_igva import IgvaProcessor
from igva.part_sources import resolve_part
from igva.untrusted import check_model_folder

TEXT_TYPES = {"llava_llama": "llama", "llava_mistral": "mistral", "llava_qwen": "qwen2"}

BLOCKS = "model.fusion.allocator.blocks."
# How names begin, official and ours. Two rows for one part: both are read, the first is what messages say.
PREFIXES = (
    # CLIP's vision half stood in a ``vision_model`` of its own until transformers 5.
    ("model.vision_tower.vision_tower.vision_model.", "model.vision_tower."),
    ("model.vision_tower.vision_tower.", "model.vision_tower."),
    # A list of sentence-transformers modules; those after the first hold no weights.
    ("model.sentence_embedder.0.auto_model.", "model.instruction_encoder."),
    ("model.vision_aggregator.sentence_proj.", "model.fusion.allocator.query_proj."),
    ("model.vision_aggregator.cls_proj.", "model.fusion.allocator.key_proj."),
    ("model.vision_aggregator.linear.", "model.fusion.allocator.to_logits."),
    ("model.vision_aggregator.transformers.", BLOCKS),
    ("model.mm_projector.0.", "model.projector.linear_1."),
    ("model.mm_projector.2.", "model.projector.linear_2."),
    ("model.embed_tokens.", "model.language_model.embed_tokens."),
    ("model.layers.", "model.language_model.layers."),
    ("model.norm.", "model.language_model.norm."),
    ("lm_head.", "lm_head."),
)
# Within a block of the aggregator.
BLOCK_PARTS = (
    (".cross_attention.", ".attention."),
    (".ffn.", ".feed_forward."),
    (".norm1.", ".norm_1."),
    (".norm2.", ".norm_2."),
)
COMPUTED = re.compile(r"(rotary_emb\.inv_freq|position_ids)$")  # older versions saved what is recomputed now
ALLOCATOR, ENCODER, TOWER = "model.fusion.", "model.instruction_encoder.", "model.vision_tower."
# What transformers raises for weights that are missing, damaged or of the wrong shape.
LOAD_ERRORS = (OSError, ValueError, RuntimeError, SafetensorError)
EMBEDDING = "model.language_model.embed_tokens.weight"


@dataclass
class Conversion:
    """What a converter made.

    Attributes:
        model: on the CPU, in the checkpoint's dtype.
        processor: None where the source lacks the files for one.
        to_train: what is not trained yet, in words.
        notes: what was left out or differs from the source, one line each.
    """

    model: IgvaForConditionalGeneration
    processor: IgvaProcessor | None
    to_train: str
    notes: list[str] = field(default_factory=list)

    def save(self, folder: Path) -> None:
        """Write model and processor into ``folder``."""
        self.model.save_pretrained(folder)
        if self.processor is not None:
            self.processor.save_pretrained(folder)


@dataclass
class SentenceEncoder:
    """A sentence encoder with its tokenizer; ``settings`` are fields of ``IgvaConfig``."""

    model: Any
    tokenizer: Any
    settings: dict[str, Any]


class Weights:
    """Tensors under our names, each with the name it had."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.origin: dict[str, str] = {}

    def add(self, name: str, tensor: Tensor, origin: str) -> None:
        """Add one tensor.

        Raises:
            UserError: two names of the source mean the same weight.
        """
        if name in self.tensors:
            raise UserError(f"{origin} and {self.origin[name]} are the same weight: remove one of the two")
        self.tensors[name], self.origin[name] = tensor, origin

    def has(self, prefix: str) -> bool:
        """Whether any weight lies under ``prefix``."""
        return any(name.startswith(prefix) for name in self.tensors)

    def drop(self, prefix: str) -> int:
        """Forget every weight under ``prefix``; returns how many there were."""
        names = [name for name in self.tensors if name.startswith(prefix)]
        for name in names:
            del self.tensors[name], self.origin[name]
        return len(names)


def import_official(
    source: Path, vision_tower: str | None = None, instruction_encoder: str | None = None
) -> Conversion:
    """Read a checkpoint of the published code.

    Args:
        source: its folder: ``config.json`` and safetensors, in one file or several.
        vision_tower: folder or hub id of the CLIP the checkpoint was trained with; its configuration is needed,
            its weights where the checkpoint has none. Default: what the checkpoint calls ``mm_vision_tower``.
        instruction_encoder: folder or hub id of the sentence encoder. Without it the model takes
            ``instruction_embeds``.

    Raises:
        UserError: not such a checkpoint, one that needs what igva does not do, or one that is not complete.
    """
    check_model_folder(source)
    official = _read_config(source)
    _refuse_unsupported(source, official)
    weights = _read_weights(source)
    if EMBEDDING not in weights.tensors:
        raise UserError(f"{source} lacks the weight model.embed_tokens.weight: copy every *.safetensors file into it")
    dtype = weights.tensors[EMBEDDING].dtype

    tower_source = _vision_source(official, vision_tower)
    vision_config = _vision_config(tower_source)
    if not weights.has(TOWER):
        _add_vision_weights(weights, tower_source, vision_config, dtype)
    notes: list[str] = []
    encoder = load_sentence_encoder(instruction_encoder, dtype) if instruction_encoder else None
    _settle_encoder(weights, encoder, official, notes)
    config = _config(source, official, vision_config, encoder)
    if config.fusion == "mean" and weights.drop(ALLOCATOR):
        notes.append("aggregator weights left out: the checkpoint averages the groups (aggregate_by_average)")
    model = _fill(source, config, weights, dtype)

    tokenizer = _load_tokenizer(source, config)
    if tokenizer is None:
        image_token_id = config.text_config.vocab_size  # type: ignore[union-attr]
        grow_vocabulary(model, image_token_id + 1)
        notes.append("no tokenizer in the source, so no processor: put its files there and convert again")
    else:
        image_token_id = add_image_token(tokenizer, model)
    model.config.image_token_id = image_token_id
    set_generation_config(model, _generation_config(source, model), image_token_id)
    processor = None
    if tokenizer is not None:
        template = _chat_template(official, tokenizer)
        processor = _processor(source, tower_source, model, tokenizer, encoder, template, notes)
    to_train = "nothing" if config.fusion == "igva" else "the allocator (stage 2): this is a stage 1 checkpoint"
    return Conversion(model.eval(), processor, to_train, notes)


def load_sentence_encoder(source: str, dtype: torch.dtype) -> SentenceEncoder:
    """A sentence encoder from a folder, a hub id or ``embedded:instruction``; safetensors only.

    Raises:
        UserError: it cannot be loaded.
    """
    try:
        source = resolve_part(source)
        if Path(source).is_dir():
            check_model_folder(Path(source))
        model = AutoModel.from_pretrained(source, dtype=dtype, use_safetensors=True, trust_remote_code=False)
        tokenizer, settings = sentence_encoder_settings(source)
    except (*LOAD_ERRORS, UserError) as error:
        raise UserError(f"--instruction-encoder {source} cannot be loaded: {first_line(error)}") from error
    return SentenceEncoder(model, tokenizer, settings)


def some_names(names: Iterable[str]) -> str:
    """The first names of a list that may be long, for errors that are one line."""
    ordered = sorted(names)
    shown = ", ".join(ordered[:3])
    return shown if len(ordered) <= 3 else f"{shown} and {len(ordered) - 3} more"


# --- reading ----------------------------------------------------------------------------------------------------


def _read_config(source: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((source / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{source / 'config.json'} is not JSON: {first_line(error)}") from error
    return config


def _refuse_unsupported(source: Path, official: dict[str, Any]) -> None:
    """Raise ``UserError`` for what would load and then answer wrongly."""
    if official.get("model_type") not in TEXT_TYPES:
        hint = ": use `igva convert llava`" if official.get("model_type") == "llava" else ""
        raise UserError(
            f"{source} is of type {official.get('model_type')!r}, the published code saves "
            f"{', '.join(TEXT_TYPES)}{hint}"
        )
    if (source / "adapter_config.json").exists():
        raise UserError(f"{source} holds a LoRA adapter: merge it into its base model and save that first")
    needed = ["vit_aggregate_groups", "vit_base_layer"]
    if not official.get("aggregate_by_average"):
        needed += ["sentence_embed_dim", "aggregator_hidden_dim", "aggregator_num_heads", "aggregator_num_transformers"]
    for name in needed:
        if official.get(name) is None:
            raise UserError(f"{source / 'config.json'} has no {name}: this is not a checkpoint of the IGVA code")
    for name, understood in (
        ("mm_projector_type", "mlp2x_gelu"),
        ("mm_patch_merge_type", "flat"),
        ("mm_vision_select_feature", "patch"),
        ("mm_use_im_start_end", False),
    ):
        if official.get(name, understood) != understood:
            raise UserError(f"{source}: {name} {official[name]!r} is not supported, only {understood!r} is")
    if str(official.get("image_aspect_ratio")).startswith("anyres"):
        raise UserError(f"{source}: image_aspect_ratio {official['image_aspect_ratio']!r} is not supported, 'pad' is")


def _read_weights(source: Path) -> Weights:
    """Every tensor of the checkpoint under our name.

    Raises:
        UserError: a missing or damaged file, or names that mean nothing here.
    """
    weights, unknown = Weights(), []
    for path in tqdm(_weight_files(source), desc="reading weights", unit="file", disable=None):
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 (no mapping)
                    if COMPUTED.search(name):
                        continue
                    if (ours := _our_name(name)) is None:
                        unknown.append(name)
                    else:
                        weights.add(ours, file.get_tensor(name), name)
        except SafetensorError as error:
            raise UserError(f"{path} is damaged ({first_line(error)}): copy it again") from error
    if unknown:
        raise UserError(f"{source} holds {some_names(unknown)}, which the published code does not have")
    return weights


def _weight_files(source: Path) -> list[Path]:
    index = source / "model.safetensors.index.json"
    if not index.exists():
        return sorted(source.glob("*.safetensors"))
    try:
        files = sorted({source / name for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()})
    except (ValueError, KeyError) as error:
        raise UserError(f"{index} is damaged: copy it again") from error
    for path in files:
        if not path.is_file():
            raise UserError(f"{path} is missing: {index.name} names it, copy it too")
    return files


def _our_name(name: str) -> str | None:
    return _rename(name, PREFIXES, BLOCK_PARTS)


def _official_name(name: str) -> str:
    back = _rename(
        name, tuple((ours, theirs) for theirs, ours in PREFIXES), tuple((ours, theirs) for theirs, ours in BLOCK_PARTS)
    )
    return back or name


def _rename(name: str, prefixes: tuple[tuple[str, str], ...], parts: tuple[tuple[str, str], ...]) -> str | None:
    for old, new in prefixes:
        if name.startswith(old):
            rest = name.removeprefix(old)
            if BLOCKS in (old, new):
                for old_part, new_part in parts:
                    rest = rest.replace(old_part, new_part)
            return new + rest
    return None


# --- the parts ----------------------------------------------------------------------------------------------------


def _vision_source(official: dict[str, Any], given: str | None) -> str:
    if given is not None:
        try:
            return resolve_part(given)
        except UserError as error:
            raise UserError(f"--vision-tower: {error}") from error
    name = str(official.get("mm_vision_tower"))
    if Path(name).is_dir() or re.fullmatch(r"[\w.-]+/[\w.-]+", name):  # a folder, or the form of a hub id
        return name
    raise UserError(
        f"the checkpoint's vision tower {name!r} is not here: name its folder or hub id with --vision-tower"
    )


def _vision_config(tower_source: str) -> Any:
    """The vision half of a CLIP's configuration."""
    try:
        config = AutoConfig.from_pretrained(tower_source, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(
            f"the vision tower {tower_source} cannot be loaded ({first_line(error)}): "
            "name its folder or hub id with --vision-tower"
        ) from error
    config = getattr(config, "vision_config", config)
    if config.model_type != "clip_vision_model":
        raise UserError(f"the vision tower {tower_source} is a {config.model_type}: the published code uses CLIP")
    return config


def _add_vision_weights(weights: Weights, tower_source: str, config: Any, dtype: torch.dtype) -> None:
    if Path(tower_source).is_dir():
        check_model_folder(Path(tower_source))
    try:
        tower, report = AutoModel.from_pretrained(
            tower_source,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            output_loading_info=True,
            trust_remote_code=False,
        )
    except LOAD_ERRORS as error:
        raise UserError(f"the vision tower {tower_source} cannot be loaded: {first_line(error)}") from error
    if report["missing_keys"]:
        raise UserError(f"the vision tower {tower_source} lacks {some_names(report['missing_keys'])}")
    for name, tensor in tower.state_dict().items():
        weights.add(TOWER + name, tensor, f"{tower_source}: {name}")


def _settle_encoder(
    weights: Weights, encoder: SentenceEncoder | None, official: dict[str, Any], notes: list[str]
) -> None:
    """The sentence encoder's weights: the checkpoint's own where it has them, for they may have been tuned."""
    if encoder is None:
        if weights.drop(ENCODER):
            notes.append(
                "the checkpoint's sentence encoder left out: name where it came from with --instruction-encoder"
            )
        return
    width = official.get("sentence_embed_dim") or encoder.model.config.hidden_size
    if encoder.model.config.hidden_size != width:
        raise UserError(
            f"--instruction-encoder gives vectors of width {encoder.model.config.hidden_size}, the checkpoint was "
            f"trained with {width} ({official.get('sentence_embedder')})"
        )
    for name, tensor in encoder.model.state_dict().items():
        if ENCODER + name not in weights.tensors:
            weights.add(ENCODER + name, tensor, f"--instruction-encoder: {name}")


def _config(source: Path, official: dict[str, Any], vision: Any, encoder: SentenceEncoder | None) -> IgvaConfig:
    text_type = TEXT_TYPES[official["model_type"]]
    known = set(AutoConfig.for_model(text_type).to_dict()) | {"rope_theta", "rope_scaling"}  # the last two: before 5.0
    known -= {"architectures", "model_type", "transformers_version", "dtype", "_name_or_path"}
    averaged = bool(official.get("aggregate_by_average"))
    options: dict[str, Any] = {"groups": _groups(source, official), "base_layer": official["vit_base_layer"]}
    if not averaged:
        options["hidden_size"] = official["aggregator_hidden_dim"]
        options["num_heads"] = official["aggregator_num_heads"]
        options["num_blocks"] = official["aggregator_num_transformers"]
    try:
        return IgvaConfig(
            vision_config=vision,
            text_config=AutoConfig.for_model(text_type, **{k: v for k, v in official.items() if k in known}),
            instruction_config=encoder.model.config if encoder else None,
            instruction_dim=official.get("sentence_embed_dim"),
            fusion="mean" if averaged else "igva",
            fusion_kwargs=options,
            **(encoder.settings if encoder else {}),
        )
    except ValueError as error:
        raise UserError(f"{source}: {first_line(error)}") from error


def _groups(source: Path, official: dict[str, Any]) -> list[list[int]]:
    """``vit_aggregate_groups``: the text of a list of lists, as the published scripts pass it."""
    written = official["vit_aggregate_groups"]
    try:
        groups = ast.literal_eval(written) if isinstance(written, str) else written
        return [[int(layer) for layer in group] for group in groups]
    except (ValueError, SyntaxError, TypeError) as error:
        raise UserError(f"{source}: vit_aggregate_groups {written!r} is not a list of lists of layers") from error


def _fill(source: Path, config: IgvaConfig, weights: Weights, dtype: torch.dtype) -> IgvaForConditionalGeneration:
    """The model with the checkpoint's weights; tensors of the right dtype are taken over without a copy.

    Raises:
        UserError: a weight too many, too few, or of another shape; the message has its official name.
    """
    try:
        with torch.device("meta"):
            skeleton = IgvaForConditionalGeneration(config)
    except ValueError as error:
        raise UserError(f"{source}: {first_line(error)}") from error
    shapes = {name: tensor.shape for name, tensor in skeleton.state_dict().items()}
    if config.tie_word_embeddings:  # the head is the embedding; some versions saved it twice
        weights.drop("lm_head.")
        del shapes["lm_head.weight"]
    if missing := [name for name in shapes if name not in weights.tensors]:
        raise UserError(f"{source} lacks the weights {some_names([_official_name(name) for name in missing])}")
    if extra := [weights.origin[name] for name in weights.tensors if name not in shapes]:
        raise UserError(f"{source} holds {some_names(extra)}, for which its configuration has no place")
    for name, tensor in weights.tensors.items():
        if tensor.shape != shapes[name]:
            raise UserError(
                f"{source}: {weights.origin[name]} has the shape {list(tensor.shape)}, "
                f"its configuration asks for {list(shapes[name])}"
            )
    model: IgvaForConditionalGeneration = IgvaForConditionalGeneration.from_pretrained(
        None, config=config, state_dict=weights.tensors, dtype=dtype
    )
    return model


# --- tokenizer and processor --------------------------------------------------------------------------------------


def _load_tokenizer(source: Path, config: IgvaConfig) -> Any:
    """The source's tokenizer, or None where it has none."""
    if not any((source / name).exists() for name in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")):
        return None
    try:  # the configuration is passed because its type on disk, llava_llama, is unknown to transformers
        return AutoTokenizer.from_pretrained(source, config=config.text_config, trust_remote_code=False)
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"the tokenizer in {source} cannot be loaded: {first_line(error)}") from error


def _generation_config(source: Path, model: IgvaForConditionalGeneration) -> Any:
    if (source / "generation_config.json").exists():
        return GenerationConfig.from_pretrained(source)
    return model.generation_config


def _chat_template(official: dict[str, Any], tokenizer: Any) -> str:
    """The published code trains Llama with LLaVA's conversation "v1"; other models bring a template of their own."""
    if official["model_type"] == "llava_llama" or tokenizer.chat_template is None:
        return TEMPLATES["vicuna_v1"]
    return str(tokenizer.chat_template)


def _processor(
    source: Path,
    tower_source: str,
    model: IgvaForConditionalGeneration,
    tokenizer: Any,
    encoder: SentenceEncoder | None,
    chat_template: str,
    notes: list[str],
) -> IgvaProcessor | None:
    """The processor, with the image settings of the checkpoint or else of its vision tower."""
    image_source = str(source) if (source / "preprocessor_config.json").exists() else tower_source
    try:
        image_processor = AutoImageProcessor.from_pretrained(image_source, trust_remote_code=False)
    except (OSError, ValueError):
        notes.append(f"no preprocessor_config.json in {tower_source}, so no processor: put one there and convert again")
        return None
    return IgvaProcessor(
        image_processor,
        tokenizer,
        encoder.tokenizer if encoder else None,
        chat_template=chat_template,
        image_token=IMAGE_TOKEN,
        num_image_tokens=model.model.fusion.num_tokens,
        use_instructions=model.model.fusion.needs_instruction,
    )
