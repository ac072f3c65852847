"""The model a recipe starts from, and the finished one as a folder."""

from __future__ import annotations

from pathlib import Path

import torch

from igva.answering import load
from igva.building import build
from igva.checkpoints.retrofit import retrofit_llava
from igva.checkpoints.tiny import trained_path
from igva.checkpoints.trained import apply_trained
from igva.data.templates import TEMPLATES
from igva.errors import UserError
from igva.files import write_errors
from igva.model.modeling_igva import IgvaForConditionalGeneration
from igva.model.processing_igva import IgvaProcessor
from igva.part_sources import resolve_part
from igva.train.arguments import Recipe
from igva.train.precision import settle_precision


def build_from_recipe(recipe: Recipe, train: bool = True) -> tuple[IgvaForConditionalGeneration, IgvaProcessor]:
    """The model a recipe starts from, and its processor.

    Args:
        train: False to get a model that can be saved: nothing in 4 bits.
    """
    recipe, _ = settle_precision(recipe, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    if recipe.model.is_whole:
        return _whole(recipe)
    settings, dtype = recipe.model, getattr(torch, recipe.model.dtype)
    if settings.retrofit:
        model, processor = _retrofitted(settings.retrofit, recipe, dtype)
    else:
        model, processor = build(
            settings.vision,
            settings.text,
            settings.instruction,
            chat_template=settings.chat_template,
            dtype=dtype,
            attention=settings.attention,
            quantize=recipe.lora.quantize if train and recipe.lora.quantize != "none" else None,
            vision_grid=settings.vision_grid,
            **settings.config_fields(),
        )
    if settings.init_from:
        apply_trained(model, trained_path(settings.init_from), lora=not recipe.adapts())
    return model, processor


def _whole(recipe: Recipe) -> tuple[IgvaForConditionalGeneration, IgvaProcessor]:
    """An igva model with all of its parts, as any tool of igva's writes it."""
    model, processor = load(recipe.model.init_from or "", "cpu", recipe.model.dtype)
    _settle_chat(model, processor, recipe)
    return model, processor


def _settle_chat(model: IgvaForConditionalGeneration, processor: IgvaProcessor, recipe: Recipe) -> None:
    """Give a model that brings its own template and attention those of the recipe, where it names them."""
    if recipe.model.chat_template:
        processor.chat_template = TEMPLATES[recipe.model.chat_template]
    if recipe.model.attention:
        model.model.language_model.set_attn_implementation(recipe.model.attention)


def _retrofitted(source: str, recipe: Recipe, dtype: torch.dtype) -> tuple[IgvaForConditionalGeneration, IgvaProcessor]:
    """A LLaVA checkpoint made into an igva model, with the recipe's template and attention."""
    settings = recipe.model
    instruction = resolve_part(settings.instruction) if settings.instruction else None
    converted = retrofit_llava(source, instruction, add_vision=settings.add_vision, **settings.fusion_kwargs)
    if converted.processor is None:
        raise UserError(f"{source} has no tokenizer or no image processor: put them beside its weights")
    _settle_chat(converted.model, converted.processor, recipe)
    return converted.model.to(dtype), converted.processor


def export(recipe: Recipe, trained: Path, output: Path) -> None:
    """Write a model as one Hugging Face folder, LoRA folded in."""
    model, processor = build_from_recipe(recipe, train=False)
    apply_trained(model, trained)
    with write_errors(output):
        model.save_pretrained(output)
        processor.save_pretrained(output)
