"""Tiny random models and processors, offline: for the test suite and for yours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    BertConfig,
    CLIPImageProcessor,
    MPNetConfig,
    PreTrainedTokenizerFast,
)

from igva.model.configuration_igva import IgvaConfig
from igva.model.modeling_igva import IgvaForConditionalGeneration
from igva.model.processing_igva import IgvaProcessor
from igva.registration import register

register()

TOWERS = ("clip", "siglip", "dinov2", "dinov2_with_registers", "vit")
LANGUAGE_MODELS = ("llama", "qwen3")
INSTRUCTION_ENCODERS = ("bert", "mpnet")

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIALS = ("<pad>", "<|im_start|>", "<|im_end|>", "<image>")


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer of 256 bytes and four special tokens: every text survives a round trip."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate([*SPECIALS, *alphabet])}
    core = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        eos_token="<|im_end|>",
        padding_side="left",
        model_max_length=4096,
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<image>"]})
    tokenizer.chat_template = CHATML
    return tokenizer


def vision_config(kind: str, layers: int = 4) -> Any:
    """A 28-pixel tower of four 14-pixel patches, 32 wide."""
    names = {"clip": "clip_vision_model", "siglip": "siglip_vision_model"}
    size: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "image_size": 28,
        "patch_size": 14,
    }
    if kind.startswith("dinov2"):
        del size["intermediate_size"]
    return AutoConfig.for_model(names.get(kind, kind), **size)


def text_config(kind: str = "llama", vocab_size: int = 260) -> Any:
    """Two layers, 48 wide."""
    return AutoConfig.for_model(
        kind,
        vocab_size=vocab_size,
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=12,
        max_position_embeddings=2048,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=2,
        tie_word_embeddings=False,
    )


def instruction_config(kind: str = "bert") -> Any:
    """A sentence encoder of two layers, 24 wide."""
    cls = {"bert": BertConfig, "mpnet": MPNetConfig}[kind]
    return cls(
        vocab_size=260,
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=512,
        pad_token_id=0,
    )


# What a fusion needs to be small enough for a 4-layer, 32-wide tower.
SMALL_FUSION_KWARGS: dict[str, dict[str, Any]] = {
    "igva": {"num_groups": 2, "hidden_size": 16, "num_blocks": 2, "num_heads": 2},
    "mean": {"num_groups": 2},
}


def tiny_model(
    fusion: str = "igva",
    tower: str = "clip",
    language: str = "llama",
    encoder: str | None = "bert",
    seed: int = 0,
    **config: Any,
) -> IgvaForConditionalGeneration:
    """A random model in float32, the same for the same arguments."""
    torch.manual_seed(seed)
    config.setdefault("fusion_kwargs", SMALL_FUSION_KWARGS.get(fusion, {}))
    model = IgvaForConditionalGeneration(
        IgvaConfig(
            vision_config=vision_config(tower),
            text_config=text_config(language),
            instruction_config=instruction_config(encoder) if encoder else None,
            fusion=fusion,
            image_token_id=SPECIALS.index("<image>"),
            **config,
        )
    )
    model.generation_config.suppress_tokens = [SPECIALS.index("<image>")]
    model.generation_config.pad_token_id = 0
    return model.eval()


def save_tiny_parts(
    folder: Path, tower: str = "clip", language: str = "llama", encoder: str = "bert"
) -> dict[str, str]:
    """Random parts as three Hugging Face folders, for ``igva.build`` and recipes: part → folder."""
    torch.manual_seed(0)
    models = {
        "vision": AutoModel.from_config(vision_config(tower)),
        "text": AutoModelForCausalLM.from_config(text_config(language)),
        "instruction": AutoModel.from_config(instruction_config(encoder)),
    }
    for name, model in models.items():
        model.save_pretrained(folder / name)
    tiny_image_processor(vision_config(tower).image_size).save_pretrained(folder / "vision")
    for name in ("text", "instruction"):
        tiny_tokenizer().save_pretrained(folder / name)
    return {name: str(folder / name) for name in models}


def tiny_image_processor(side: int) -> Any:
    return CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side})


def tiny_processor(model: IgvaForConditionalGeneration) -> IgvaProcessor:
    """The processor that fits a ``tiny_model``."""
    return IgvaProcessor(
        tiny_image_processor(model.config.input_size),
        tiny_tokenizer(),
        tiny_tokenizer() if model.config.instruction_config is not None else None,
        num_image_tokens=model.model.fusion.num_tokens,
        use_instructions=model.model.fusion.needs_instruction,
    )
