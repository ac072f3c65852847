"""Tiny random models and processors, offline: for the test suite and for yours."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    BertConfig,
    CLIPImageProcessor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    MPNetConfig,
    PreTrainedTokenizerFast,
)

from igva.model.configuration_igva import IgvaConfig
from igva.model.efficientnet_lite import EfficientNetLiteConfig, WordsLayer
from igva.model.modeling_igva import IgvaForConditionalGeneration
from igva.model.processing_igva import IgvaProcessor
from igva.model.vision_ensemble import EnsembleVisionConfig

TOWERS = ("clip", "siglip", "dinov2", "dinov2_with_registers", "vit")
ENSEMBLE = "ensemble"  # a tower of two encoders, which tiny_model takes in place of one of TOWERS
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


# Stand-ins for published tokenizers: how each splits text, starts it and ends a turn is theirs, and so is what their
# chat templates write; the merges are learnt from the sentences below.
STAND_INS = ("vicuna", "llama3", "qwen3", "smollm2")
_SENTENCES = (
    "A chat between a curious human and an artificial intelligence assistant. USER: What is in the picture? "
    "ASSISTANT: A cat is on the mat. The assistant gives helpful, detailed, and polite answers to the questions.\n",
    "You are a helpful assistant.\nWhere is the cat?\n\nThe cat is on the red mat, and the dog is not in the picture.",
    "system\n\nuser\n\nassistant\n\nDescribe the image. Answer in one word. It is there. Here it is. Yes. No. 12 345",
)
# Words with one character before them, numbers, marks with the line breaks after them, white space (Llama 3's and
# Qwen's tokenizer.json; they differ in how many digits stand together).
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_TURNS = "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
_HEADER = "<|start_header_id|>%s<|end_header_id|>\n\n"
OWN_TEMPLATES: dict[str, str | None] = {
    "vicuna": None,
    # Llama 3.1: every chat starts with a system turn and two dates.
    "llama3": (
        "{{ bos_token }}" + _HEADER % "system" + "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
        "{% set turns = messages %}{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] | trim }}"
        "{% set turns = messages[1:] %}{% endif %}<|eot_id|>"
        "{% for m in turns %}" + _HEADER % "{{ m['role'] }}" + "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
        "{% if add_generation_prompt %}" + _HEADER % "assistant" + "{% endif %}"
    ),
    # Qwen3: answers after the last question start with an empty thought, earlier ones do not.
    "qwen3": (
        "{% set ask = namespace(last=-1) %}"
        "{% for m in messages %}{% if m['role'] == 'user' %}{% set ask.last = loop.index0 %}{% endif %}{% endfor %}"
        "{% for m in messages %}{% if m['role'] == 'assistant' and loop.index0 > ask.last %}"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n{{ m['content'] }}<|im_end|>\n"
        "{% else %}" + _TURNS + "{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    # SmolLM2: a system prompt where the chat has none.
    "smollm2": (
        "{% if messages[0]['role'] != 'system' %}<|im_start|>system\n"
        "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n{% endif %}"
        "{% for m in messages %}" + _TURNS + "{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    # LLaVA-1.5 of transformers: no system prompt, and a space in place of an end-of-turn token.
    "llava": (
        "{% for m in messages %}{{ m['role'] | upper }}: "
        "{% for c in m['content'] %}{{ '<image>\n' if c['type'] == 'image' else c['text'] + ' ' }}{% endfor %}"
        "{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
    ),
}


def stand_in_tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """A tokenizer of a published one's shape, without image token: one of ``STAND_INS``."""
    core, named = _sentencepiece() if kind == "vicuna" else _byte_level(kind)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, model_max_length=4096, **named)
    tokenizer.chat_template = OWN_TEMPLATES[kind]
    return tokenizer


def _sentencepiece() -> tuple[Tokenizer, dict[str, str]]:
    """Llama 2's: a word's space is its first letter, unknown characters are bytes, every text starts with <s>."""
    lines = "\n".join(_SENTENCES).split("\n")  # a line break is a byte
    learnt = _learnt(pre_tokenizers.Metaspace(), lines, [chr(code) for code in range(33, 127)])
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *learnt["vocab"]]
    core = Tokenizer(
        models.BPE(
            vocab={token: i for i, token in enumerate(tokens)},
            merges=[(left, right) for left, right in learnt["merges"]],
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    core.add_special_tokens(["<unk>", "<s>", "</s>"])
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return core, {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}


def _byte_level(kind: str) -> tuple[Tokenizer, dict[str, str]]:
    chatml = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    header = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    specials = header if kind == "llama3" else chatml
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    split: Any = {
        "llama3": [pre_tokenizers.Split(Regex(_WORDS % "{1,3}"), "isolated"), whole],
        "qwen3": [pre_tokenizers.Split(Regex(_WORDS % ""), "isolated"), whole],
        "smollm2": [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)],
    }[kind]
    learnt = _learnt(pre_tokenizers.Sequence(split), _SENTENCES, sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokens = [*specials, *learnt["vocab"]]
    core = Tokenizer(
        models.BPE(
            vocab={token: i for i, token in enumerate(tokens)},
            merges=[(left, right) for left, right in learnt["merges"]],
        )
    )
    core.pre_tokenizer = pre_tokenizers.Sequence(split)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(specials)
    if kind == "qwen3":
        core.add_tokens([AddedToken(token, normalized=False) for token in ("<think>", "</think>")])
        return core, {"pad_token": "<|endoftext|>", "eos_token": "<|im_end|>"}
    if kind == "smollm2":
        return core, {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
    core.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", 0)]
    )
    return core, {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}


def _learnt(split: Any, texts: Sequence[str], alphabet: list[str]) -> dict[str, Any]:
    """Byte-pair merges of some texts, as the tokenizer's own JSON has them: ``vocab`` and ``merges``."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = split
    core.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=450, initial_alphabet=alphabet, show_progress=False))
    model: dict[str, Any] = json.loads(core.to_str())["model"]
    return model


def vision_config(kind: str, layers: int = 4) -> Any:
    """A 28-pixel tower of four 14-pixel patches, 32 wide: one of ``TOWERS``, or ``ENSEMBLE``, which has four layers."""
    if kind == ENSEMBLE:
        return ensemble_config()
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


def efficientnet_config(word_size: int = 0) -> EfficientNetLiteConfig:
    """Two stages: the maps of layers 1 to 4 have 8, 12, 24 and, where there are words, ``word_size`` channels."""
    stages = [[1, 3, 1, 1, 8], [2, 5, 2, 2, 12]]
    return EfficientNetLiteConfig(
        stages=stages, stem_size=8, head_size=24, num_classes=10, word_size=word_size, image_size=32
    )


def ensemble_config() -> EnsembleVisionConfig:
    """Layers 2 and 4 of a DINOv2 24 wide, stage 2 and the words of an EfficientNet, as layers 1 to 4, 32 wide."""
    dinov2 = vision_config("dinov2")
    dinov2.hidden_size = 24
    own = {"image_size": 28, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.3], "patches": 2}
    other = {"image_size": 24, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "stack": {"2": 2}, "plain": [4]}
    return EnsembleVisionConfig(
        encoders=[
            {"name": "dinov2", "config": dinov2.to_dict(), "layers": [2, 4], **own},
            {
                "name": "efficientnet",
                "config": efficientnet_config(word_size=32).to_dict(),
                "layers": [2, 4],
                "layer_names": {"4": "words"},
                **other,
            },
        ],
        hidden_size=32,
        grid=2,
        image_size=28,
    )


def _give_words(tower: Any) -> None:
    """Random vectors for the classes of a words layer, which come out of a checkpoint and start as zeros."""
    for module in tower.modules():
        if isinstance(module, WordsLayer):
            module.vectors.normal_()


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


_SMALL_ALLOCATOR = {"num_groups": 2, "hidden_size": 16, "num_blocks": 2, "num_heads": 2}
# What a fusion needs to be small enough for a 4-layer, 32-wide tower.
SMALL_FUSION_KWARGS: dict[str, dict[str, Any]] = {
    "deepstack": {"layers": [1, 2]},
    "dense_sti": {"pool": 2},
    "igva": _SMALL_ALLOCATOR,
    "igva_concat": _SMALL_ALLOCATOR,
    "mean": {"num_groups": 2},
    "mmfuser": {"num_heads": 2, "num_points": 2},
    "tgif": {"hidden_size": 16},
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
    _give_words(model.model.vision_tower)
    model.generation_config.suppress_tokens = [SPECIALS.index("<image>")]
    model.generation_config.pad_token_id = 0
    return model.eval()


def save_tiny_parts(
    folder: Path,
    tower: str = "clip",
    language: str = "llama",
    encoder: str = "bert",
    layers: int = 4,
    tokenizer: str | None = None,
) -> dict[str, str]:
    """Random parts as three Hugging Face folders, for ``igva.build`` and recipes: part → folder.

    Args:
        layers: of the vision tower.
        tokenizer: the language model's, one of ``STAND_INS``; None: ``tiny_tokenizer``.
    """
    torch.manual_seed(0)
    words = stand_in_tokenizer(tokenizer) if tokenizer else tiny_tokenizer()
    models = {
        "vision": AutoModel.from_config(vision_config(tower, layers)),
        "text": AutoModelForCausalLM.from_config(text_config(language, len(words))),
        "instruction": AutoModel.from_config(instruction_config(encoder)),
    }
    _give_words(models["vision"])
    for name, model in models.items():
        model.save_pretrained(folder / name)
    config = models["vision"].config
    tiny_image_processor(config.image_size, tower != ENSEMBLE).save_pretrained(folder / "vision")
    words.save_pretrained(folder / "text")
    tiny_tokenizer().save_pretrained(folder / "instruction")
    return {name: str(folder / name) for name in models}


def save_tiny_llava(folder: Path, layers: int = 4) -> str:
    """A random LLaVA-1.5 with its processor: CLIP, Llama, Vicuna's tokenizer and an image token."""
    torch.manual_seed(0)
    tokenizer = stand_in_tokenizer("vicuna")
    tokenizer.add_tokens([AddedToken("<image>", special=True, normalized=False)], special_tokens=True)
    vision = vision_config("clip", layers)
    LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=vision,
            text_config=text_config("llama", len(tokenizer)),
            image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
            vision_feature_layer=-2,
        )
    ).save_pretrained(folder)
    LlavaProcessor(
        tiny_image_processor(vision.image_size),
        tokenizer,
        patch_size=vision.patch_size,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=OWN_TEMPLATES["llava"],
    ).save_pretrained(folder)
    return str(folder)


def tiny_image_processor(side: int, normalize: bool = True) -> Any:
    """Resizes and crops to a square; an ensemble's does not normalise."""
    crop = {"height": side, "width": side}
    return CLIPImageProcessor(size={"shortest_edge": side}, crop_size=crop, do_normalize=normalize)


def tiny_processor(model: IgvaForConditionalGeneration) -> IgvaProcessor:
    """The processor that fits a ``tiny_model``."""
    normalize = not isinstance(model.config.vision_config, EnsembleVisionConfig)
    return IgvaProcessor(
        tiny_image_processor(model.config.input_size, normalize),
        tiny_tokenizer(),
        tiny_tokenizer() if model.config.instruction_config is not None else None,
        num_image_tokens=model.model.fusion.num_tokens,
        use_instructions=model.model.fusion.needs_instruction,
    )
