"""``igva study attention``: one picture, every layer of the tower (the maps of the paper's first figure)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from igva.checkpoints.store import write_errors
from igva.errors import UserError
from igva.layer_names import group_label, layer_label, layer_names
from igva.model.modeling_igva import IgvaForConditionalGeneration
from igva.model.processing_igva import IgvaProcessor
from igva.model.vision_layers import VisionLayers, split_layers
from igva.study.attention import Attention, principal_colors, similarity, tower_attention
from igva.study.attention_figures import draw_groups, draw_layers, draw_weighed
from igva.study.report import Cell, Figure, Table, write_report
from igva.study.weights import sentence_vectors

MAPS = "attention.safetensors"


def study_attention(
    model: IgvaForConditionalGeneration,
    processor: IgvaProcessor,
    picture: Image.Image,
    out: Path,
    *,
    question: str | None = None,
    point: tuple[float, float] = (0.5, 0.5),
    settings: dict[str, Any],
) -> Path:
    """Draw what each layer attends to; returns the report's path.

    Args:
        question: also show how the fusion weighs the layer groups for it.
        point: across and down in 0..1, the patch whose likeness to the others is drawn.

    Raises:
        UserError: the tower gives no attention weights, the point is outside the picture, or the fusion cannot weigh
            for a question.
    """
    if not all(0 <= value <= 1 for value in point):
        raise UserError(f"--point {point[0]:g} {point[1]:g} is outside the picture: use numbers from 0 to 1")
    fusion = model.model.fusion
    groups = fusion.layer_groups or split_layers(fusion.dims.num_layers, min(4, fusion.dims.num_layers))
    named = layer_names(model.config)
    names = [group_label(group, named) for group in groups]
    pixels = processor.prepare_images([picture])
    attention, means = tower_attention(model, pixels, [*fusion.taps, *groups])
    taps = len(fusion.taps)
    weights = None
    if question is not None:
        weights = _weights(
            model, processor, VisionLayers(means.patches[:, :taps], means.descriptors[:, :taps]), question
        )
    patches = means.patches[0, taps:].float().cpu()
    colors = principal_colors(patches)
    side = colors.shape[1]
    place = (min(int(point[1] * side), side - 1), min(int(point[0] * side), side - 1))
    alike = similarity(patches, *place)
    seen, maps = seen_picture(processor, pixels), attention.maps()
    grouped = torch.stack([_group_map(attention, maps, group) for group in groups])
    figures = [
        Figure(
            "attention",
            "What each layer attends to",
            draw_layers(seen, maps, [layer_label(layer, named) for layer in attention.layers]),
            f"{attention.what} over the patches, mean over the heads; every map has a scale of its own.",
        ),
        Figure(
            "groups",
            "Layer groups",
            draw_groups(seen, names, grouped, colors, alike, place, weights),
            "Principal components: the first three of a group's patches as red, green and blue. Likeness: cosine with "
            "the marked patch.",
        ),
    ]
    if question is not None and weights is not None:
        mixed = torch.einsum("k,kxy->xy", torch.tensor(weights), grouped)
        figures.insert(0, Figure("weights", "Layer weights", draw_weighed(seen, names, weights, mixed, question)))
    table = layer_table(attention, named)
    with write_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        _save(out / MAPS, attention, colors, alike, weights)
    return write_report(
        out,
        title="What each layer attends to",
        summary=findings(table, attention, names, weights, question),
        tables=[table],
        figures=figures,
        settings=settings,
    )


def _group_map(attention: Attention, maps: Tensor, group: Sequence[int]) -> Tensor:
    """The mean map of a group's layers, ``(side, side)``; nothing anywhere where none of them attends."""
    places = [attention.layers.index(layer) for layer in group if layer in attention.layers]
    return maps[places].mean(dim=0) if places else torch.zeros_like(maps[0])


def _weights(
    model: IgvaForConditionalGeneration, processor: IgvaProcessor, layers: VisionLayers, question: str
) -> list[float]:
    if not question.strip():
        raise UserError("the question is empty: say what you want to know about the picture")
    if not model.model.fusion.layer_groups:
        raise UserError(f"fusion {model.config.fusion!r} has no layer weights: leave --question out")
    vectors = sentence_vectors(model, processor, [question])
    if vectors is None and model.model.fusion.needs_instruction:
        raise UserError("the model was saved without a sentence encoder: leave --question out")
    with torch.inference_mode():
        features = model.get_image_features(
            layer_patches=layers.patches, layer_descriptors=layers.descriptors, instruction_embeds=vectors
        )
    found = features.fusion_weights
    if found is None:
        raise UserError(f"fusion {model.config.fusion!r} gives no layer weights: leave --question out")
    rows: list[float] = found.float().flatten(0, -2).mean(dim=0).tolist()
    return rows


def seen_picture(processor: IgvaProcessor, pixels: Tensor) -> Tensor:
    """The picture the tower sees, padded, resized and cropped: ``(1, 3, height, width)`` → ``(height, width, 3)``."""
    settings = processor.image_processor
    mean, std = (
        torch.tensor(value if getattr(settings, "do_normalize", True) and value else default)
        for value, default in (
            (getattr(settings, "image_mean", None), (0.0, 0.0, 0.0)),
            (getattr(settings, "image_std", None), (1.0, 1.0, 1.0)),
        )
    )
    return (pixels[0].float().cpu() * std[:, None, None] + mean[:, None, None]).clamp(0, 1).permute(1, 2, 0)


def layer_table(attention: Attention, named: Sequence[str] | None = None) -> Table:
    """Per layer: what the prefix tokens get, and how far the rest is spread over the patches."""
    rows: list[list[Cell]] = []
    for layer, key in zip(attention.layers, attention.keys.double().mean(dim=1), strict=True):
        patches = key[attention.prefix :]
        shares = patches / patches.sum()
        spread = float(torch.special.entr(shares).sum()) / math.log(len(shares)) if len(shares) > 1 else None
        running = shares.sort(descending=True).values.cumsum(dim=0)
        half = int((running < 0.5).sum()) + 1  # patches that hold half of it
        row: list[Cell] = [layer if named is None else layer_label(layer, named).removeprefix("layer ")]
        if attention.prefix:
            row.append(round(100 * float(key[0]), 2))
        if attention.prefix > 1:
            row.append(round(100 * float(key[1 : attention.prefix].sum()), 2))
        spread = None if spread is None else round(spread, 4)
        rows.append([*row, round(100 * float(patches.sum()), 2), spread, round(100 * half / len(shares), 1)])
    prefixed = ["on CLS, %"] * (attention.prefix > 0) + ["on registers, %"] * (attention.prefix > 1)
    return Table(
        "layers",
        "Attention per layer",
        ["layer", *prefixed, "on patches, %", "spread", "half on, % of patches"],
        rows,
        f"{attention.what}. Spread: entropy over the patches, 1 where all get alike. Half on: the "
        "smallest share of the patches that holds half of what the patches get.",
    )


def findings(
    table: Table, attention: Attention, names: Sequence[str], weights: Sequence[float] | None, question: str | None
) -> list[str]:
    """What the maps show, in numbers."""
    by_gathering = sorted(table.rows, key=lambda row: float(row[-1] or 0))
    sharp, wide = by_gathering[0], by_gathering[-1]
    lines = [
        f"{attention.what}: most gathered in layer {sharp[0]}, where half of it lies on {sharp[-1]} % "
        f"of the patches, and most spread in layer {wide[0]} ({wide[-1]} %)."
    ]
    if attention.prefix:
        own = max(table.rows, key=lambda row: float(row[1] or 0))
        lines.append(f"Of what it gives, the CLS token itself gets most in layer {own[0]}: {own[1]} %.")
    if weights is not None:
        shares = ", ".join(f"{name} {100 * weight:.1f} %" for name, weight in zip(names, weights, strict=True))
        lines.append(f"For “{question}” the layers are weighed: {shares}.")
    return lines


def _save(path: Path, attention: Attention, colors: Tensor, alike: Tensor, weights: Sequence[float] | None) -> None:
    tensors = {"attention": attention.keys, "principal_colors": colors, "similarity": alike}
    if weights is not None:
        tensors["weights"] = torch.tensor(weights)
    part = path.with_name(f"{path.name}.part")
    save_file({name: value.contiguous() for name, value in tensors.items()}, part, {"prefix": str(attention.prefix)})
    part.replace(path)
