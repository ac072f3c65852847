"""Put a vision tower, a language model and a sentence encoder together into an IGVA model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AddedToken,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
)

# Not from the top level: what transformers 5.16 exports there wants torchvision, the class itself does not.
from transformers.models.auto.image_processing_auto import AutoImageProcessor
from transformers.utils import cached_file, is_bitsandbytes_available

from igva.data.templates import TEMPLATES
from igva.ensembles import load_ensemble, unnormalised_pictures
from igva.errors import UserError
from igva.model.configuration_igva import IgvaConfig
from igva.model.fusions import build_fusion
from igva.model.modeling_igva import IgvaForConditionalGeneration
from igva.model.processing_igva import IgvaProcessor
from igva.model.projector import build_projector
from igva.model_settings import config_of_parts
from igva.part_sources import load_vision_tower, resolve_part

IMAGE_TOKEN = "<image>"


def build(
    vision: str | Path | Sequence[Any],
    text: str | Path,
    instruction: str | Path | None = None,
    fusion: str = "igva",
    *,
    fusion_kwargs: dict[str, Any] | None = None,
    chat_template: str | None = None,
    dtype: torch.dtype = torch.float32,
    attention: str | None = None,
    quantize: str | None = None,
    vision_grid: int | None = None,
    **config: Any,
) -> tuple[IgvaForConditionalGeneration, IgvaProcessor]:
    """A new model from pretrained parts; fusion and projector are freshly initialised.

    Args:
        vision, text, instruction: folders, hub ids, or ``embedded:vision`` and so on, the small parts igva brings.
            A vision checkpoint may be a whole CLIP or SigLIP; its vision half is taken. A list of several makes
            one tower of them: see ``igva.ensembles.ensemble_config``. ``instruction`` may be left out for a fusion
            that needs none.
        fusion: a name of the fusion table; ``fusion_kwargs`` are its own options.
        chat_template: overrides the language model's: a name of ``data/templates.py``, or a template.
        attention: transformers' ``attn_implementation`` of the language model; default: its choice.
        quantize: ``nf4`` keeps the language model's linear layers in 4 bits (needs bitsandbytes); such a model can
            be trained through adapters but not saved.
        vision_grid: cells to the side of the common grid, where ``vision`` is a list.
        config: further fields of ``IgvaConfig``.

    Returns:
        The model in ``dtype`` on the CPU, and its processor.

    Raises:
        UserError: the parts do not fit together, in one line.
    """
    text = resolve_part(text)
    tower, images = _vision(vision, vision_grid, dtype)
    language = load_language_model(text, dtype, attention, quantize)
    tokenizer = AutoTokenizer.from_pretrained(text, trust_remote_code=False)
    image_token_id = add_image_token(tokenizer, language)
    encoder = instruction_tokenizer = None
    if instruction is not None:
        instruction = resolve_part(instruction)
        encoder = AutoModel.from_pretrained(instruction, dtype=dtype, trust_remote_code=False)
        instruction_tokenizer, settings = sentence_encoder_settings(instruction)
        config = {**settings, **config}
    model_config = config_of_parts(
        tower.config,
        language.config,
        encoder.config if encoder is not None else None,
        image_token_id=image_token_id,
        fusion=fusion,
        fusion_kwargs=fusion_kwargs,
        **config,
    )
    try:
        model = _assemble(model_config, tower, language, encoder, dtype)
    except ValueError as error:
        raise UserError(str(error)) from error
    if attention:  # the whole model's choice has been written over the one it was loaded with
        model.model.language_model.set_attn_implementation(attention)
    set_generation_config(model, language.generation_config, image_token_id)
    processor = IgvaProcessor(
        images,
        tokenizer,
        instruction_tokenizer,
        chat_template=TEMPLATES.get(chat_template or "", chat_template) or tokenizer.chat_template,
        image_token=IMAGE_TOKEN,
        num_image_tokens=model.model.fusion.num_tokens,
        use_instructions=model.model.fusion.needs_instruction,
    )
    return model.eval(), processor


def _vision(vision: str | Path | Sequence[Any], grid: int | None, dtype: torch.dtype) -> tuple[Any, Any]:
    """The tower and its image processor."""
    if not isinstance(vision, (str, Path)):
        tower = load_ensemble(vision, grid, dtype)
        return tower, unnormalised_pictures(tower.config)
    if grid is not None:
        raise UserError("vision_grid is the common grid of several encoders: leave it out, or give a list of them")
    source = resolve_part(vision)
    return load_vision_tower(source, dtype), AutoImageProcessor.from_pretrained(source, trust_remote_code=False)


def _assemble(
    config: IgvaConfig, tower: Any, language: Any, encoder: Any, dtype: torch.dtype
) -> IgvaForConditionalGeneration:
    """The pretrained parts inside one model; only fusion and projector are made anew.

    Raises:
        ValueError: the config does not fit together.
    """
    with torch.device("meta"):  # a second, random copy of the pretrained parts would double the memory
        shell = IgvaForConditionalGeneration(config)
    shell.model.vision_tower = tower
    shell.model.instruction_encoder = encoder
    shell.model.language_model = language.model
    shell.lm_head = language.lm_head
    shell.model.fusion = build_fusion(config.fusion, config.fusion_kwargs or {}, config.fusion_dims()).to(dtype)
    shell.model.projector = build_projector(config, shell.model.fusion).to(dtype)
    if getattr(language, "is_loaded_in_4bit", False):
        shell.is_loaded_in_4bit = True  # PEFT and the trainer look for it on the whole model
        shell.hf_quantizer = language.hf_quantizer
    return shell


def load_language_model(source: str, dtype: torch.dtype, attention: str | None, quantize: str | None) -> Any:
    """A causal language model, its linear layers in 4 bits where ``quantize`` is ``nf4``.

    Raises:
        UserError: bitsandbytes is missing.
    """
    options: dict[str, Any] = {"attn_implementation": attention} if attention else {}
    if quantize == "nf4":
        if not is_bitsandbytes_available():
            raise UserError("4-bit weights need the package bitsandbytes: pip install 'igva[quantize]'")
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    return AutoModelForCausalLM.from_pretrained(source, dtype=dtype, **options, trust_remote_code=False)


def add_image_token(tokenizer: Any, language: Any) -> int:
    """Make ``<image>`` one token of the vocabulary and return its id.

    The embedding grows only where the vocabulary has no room left; the new rows are zero: their input is always
    replaced by visual tokens, and generation never emits them (``suppress_tokens``).
    """
    if IMAGE_TOKEN not in tokenizer.get_vocab():
        tokenizer.add_tokens([AddedToken(IMAGE_TOKEN, special=True, normalized=False)], special_tokens=True)
    image_token_id = int(tokenizer.convert_tokens_to_ids(IMAGE_TOKEN))
    grow_vocabulary(language, max(len(tokenizer), image_token_id + 1))
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return image_token_id


def grow_vocabulary(language: Any, size: int) -> None:
    """Give a causal language model room for ``size`` tokens; the new rows are zero."""
    old = language.get_input_embeddings().weight.shape[0]
    if old >= size:
        return
    language.resize_token_embeddings(size, mean_resizing=False)
    with torch.no_grad():
        language.get_input_embeddings().weight[old:] = 0
        language.get_output_embeddings().weight[old:] = 0


def set_generation_config(model: Any, generation_config: Any, image_token_id: int) -> None:
    """Generation settings of the language model, greedy by default, never emitting an image placeholder."""
    generation_config.suppress_tokens = [image_token_id]
    generation_config.do_sample = False
    # Sampling settings beside greedy decoding are warned about at every save and call.
    generation_config.temperature = generation_config.top_p = generation_config.top_k = None
    model.generation_config = generation_config


def sentence_encoder_settings(source: str | Path) -> tuple[Any, dict[str, Any]]:
    """Tokenizer and pooling of a sentence-transformers checkpoint, as its ``modules.json`` says.

    Returns:
        The tokenizer, truncating where sentence-transformers does, and fields of ``IgvaConfig``.

    Raises:
        UserError: it pools in a way that is not supported.
    """
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    modules = _read_json(source, "modules.json") or []
    kinds = [module["type"].rsplit(".", 1)[-1] for module in modules]
    pooling = "mean"
    for module in modules:
        if module["type"].endswith("Pooling"):
            pooling = _pooling_name(_read_json(source, f"{module['path']}/config.json") or {}, source)
    limit = (_read_json(source, "sentence_bert_config.json") or {}).get("max_seq_length")
    if limit:
        tokenizer.model_max_length = min(int(limit), tokenizer.model_max_length)
    return tokenizer, {
        "instruction_pooling": pooling,
        "instruction_normalize": "Normalize" in kinds or not modules,
    }


def _pooling_name(config: dict[str, Any], source: str | Path) -> str:
    if config.get("pooling_mode") in ("mean", "cls"):  # sentence-transformers 5 and later
        return str(config["pooling_mode"])
    on = [
        key.removeprefix("pooling_mode_") for key, value in config.items() if key.startswith("pooling_mode_") and value
    ]
    names = {"mean_tokens": "mean", "cls_token": "cls"}
    if not on:
        return "mean"
    if len(on) > 1 or on[0] not in names:
        raise UserError(
            f"{source}: sentence encoders that pool by {' + '.join(on)} are not supported (mean and cls are)"
        )
    return names[on[0]]


def _read_json(source: str | Path, name: str) -> Any:
    path = cached_file(str(source), name, _raise_exceptions_for_missing_entries=False)
    return json.loads(Path(path).read_text()) if path else None
