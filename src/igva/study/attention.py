"""``igva study attention``: what each layer of a vision tower attends to on one picture, drawn and in numbers.

The maps are those of the paper's first figure (arXiv 2501.08443). Letters: ``L`` layers, ``G`` layer groups, ``N``
patches, ``D`` vision width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from igva.attention import Attention, to_grid, tower_attention
from igva.errors import UserError
from igva.files import new_file, write_errors
from igva.layer_names import group_label, layer_label, layer_names
from igva.model.modeling_igva import IgvaForConditionalGeneration
from igva.model.processing_igva import IgvaProcessor
from igva.model.vision_layers import VisionLayers, split_layers
from igva.plot import new_figure, stacked
from igva.study.report import Figure, write_report
from igva.study.weights import sentence_vectors
from igva.tables import Cell, Table

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
    cell = (min(int(point[1] * side), side - 1), min(int(point[0] * side), side - 1))
    alike = similarity(patches, *cell)
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
            draw_groups(seen, names, grouped, colors, alike, cell, weights),
            "Principal components: the first three of a group's patches as red, green and blue. Likeness: cosine with "
            "the marked patch.",
        ),
    ]
    if question is not None and weights is not None:
        mixed = torch.einsum("k,kxy->xy", torch.tensor(weights), grouped)
        figures.insert(0, Figure("weights", "Layer weights", draw_weighed(seen, names, weights, mixed, question)))
    with write_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        _save(out / MAPS, attention, colors, alike, weights)
    return write_report(
        out,
        title="What each layer attends to",
        summary=findings(layer_reaches(attention, named), attention, names, weights, question),
        tables=[layer_table(attention, named)],
        figures=figures,
        settings=settings,
    )


def _group_map(attention: Attention, maps: Tensor, group: Sequence[int]) -> Tensor:
    """The mean map of a group's layers, ``(side, side)``; nothing anywhere where none of them attends."""
    rows = [attention.layers.index(layer) for layer in group if layer in attention.layers]
    return maps[rows].mean(dim=0) if rows else torch.zeros_like(maps[0])


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
    given = features.fusion_weights
    if given is None:
        raise UserError(f"fusion {model.config.fusion!r} gives no layer weights: leave --question out")
    rows: list[float] = given.float().flatten(0, -2).mean(dim=0).tolist()
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


@dataclass(frozen=True)
class Reach:
    """How one layer's attention is spread, in percent to two digits (the last to one).

    Attributes:
        layer: its number, or its name.
        on_cls, on_registers: what these prefix tokens get; None where the tower has none.
        on_patches: what all patches get.
        spread: entropy over the patches, 1 where all get alike; None of a single patch.
        half_on: the smallest share of the patches that holds half of what the patches get.
    """

    layer: str | int
    on_cls: float | None
    on_registers: float | None
    on_patches: float
    spread: float | None
    half_on: float


def layer_reaches(attention: Attention, named: Sequence[str] | None = None) -> list[Reach]:
    """Per layer: what the prefix tokens get, and how far the rest is spread over the patches."""
    reaches = []
    for layer, key in zip(attention.layers, attention.keys.double().mean(dim=1), strict=True):
        patches = key[attention.prefix :]
        shares = patches / patches.sum()
        spread = float(torch.special.entr(shares).sum()) / math.log(len(shares)) if len(shares) > 1 else None
        running = shares.sort(descending=True).values.cumsum(dim=0)
        half = int((running < 0.5).sum()) + 1  # patches that hold half of it
        registers = key[1 : attention.prefix]
        reaches.append(
            Reach(
                layer=layer if named is None else layer_label(layer, named).removeprefix("layer "),
                on_cls=round(100 * float(key[0]), 2) if attention.prefix else None,
                on_registers=round(100 * float(registers.sum()), 2) if len(registers) else None,
                on_patches=round(100 * float(patches.sum()), 2),
                spread=None if spread is None else round(spread, 4),
                half_on=round(100 * half / len(shares), 1),
            )
        )
    return reaches


def layer_table(attention: Attention, named: Sequence[str] | None = None) -> Table:
    """A row per layer; columns of prefix tokens only where the tower has them."""
    columns = {"layer": "layer", "on_cls": "on CLS, %", "on_registers": "on registers, %"}
    columns |= {"on_patches": "on patches, %", "spread": "spread", "half_on": "half on, % of patches"}
    if attention.prefix < 1:
        del columns["on_cls"]
    if attention.prefix < 2:
        del columns["on_registers"]
    rows: list[list[Cell]] = [[getattr(reach, name) for name in columns] for reach in layer_reaches(attention, named)]
    return Table(
        "layers",
        "Attention per layer",
        list(columns.values()),
        rows,
        f"{attention.what}. Spread: entropy over the patches, 1 where all get alike. Half on: the "
        "smallest share of the patches that holds half of what the patches get.",
    )


def findings(
    reaches: Sequence[Reach],
    attention: Attention,
    names: Sequence[str],
    weights: Sequence[float] | None,
    question: str | None,
) -> list[str]:
    """What the maps show, in numbers."""
    by_gathering = sorted(reaches, key=lambda reach: reach.half_on)
    sharp, wide = by_gathering[0], by_gathering[-1]
    lines = [
        f"{attention.what}: most gathered in layer {sharp.layer}, where half of it lies on {sharp.half_on} % "
        f"of the patches, and most spread in layer {wide.layer} ({wide.half_on} %)."
    ]
    if attention.prefix:
        own = max(reaches, key=lambda reach: reach.on_cls or 0)
        lines.append(f"Of what it gives, the CLS token itself gets most in layer {own.layer}: {own.on_cls} %.")
    if weights is not None:
        shares = ", ".join(f"{name} {100 * weight:.1f} %" for name, weight in zip(names, weights, strict=True))
        lines.append(f"For “{question}” the layers are weighed: {shares}.")
    return lines


def _save(path: Path, attention: Attention, colors: Tensor, alike: Tensor, weights: Sequence[float] | None) -> None:
    tensors = {"attention": attention.keys, "principal_colors": colors, "similarity": alike}
    if weights is not None:
        tensors["weights"] = torch.tensor(weights)
    whole = {name: value.contiguous() for name, value in tensors.items()}
    with new_file(path) as part:
        save_file(whole, part, {"prefix": str(attention.prefix)})


def principal_colors(patches: Tensor) -> Tensor:
    """The first three principal components of each group's patches as red, green and blue: alike patches look alike.

    Args:
        patches: ``(G, N, D)``.

    Returns:
        ``(G, side, side, 3)`` in 0..1, each component stretched over its range; black where it does not vary.
    """
    centred = patches.double() - patches.double().mean(dim=1, keepdim=True)
    left, values, _ = torch.linalg.svd(centred, full_matrices=False)
    scores = (left * values[:, None])[..., :3]  # (G, N, up to 3)
    scores = nn.functional.pad(scores, (0, 3 - scores.shape[-1]))
    # A component's sign is arbitrary: its largest entry is made positive, so that a picture has one map.
    largest = scores.gather(1, scores.abs().argmax(dim=1, keepdim=True))
    scores = scores * torch.where(largest < 0, -1.0, 1.0)
    low, high = scores.amin(dim=1, keepdim=True), scores.amax(dim=1, keepdim=True)
    return to_grid(((scores - low) / (high - low).clamp_min(1e-9)).float())


def similarity(patches: Tensor, row: int, column: int) -> Tensor:
    """Cosine of every patch with one of them, per group: ``(G, N, D)`` → ``(G, side, side)``."""
    grid = to_grid(nn.functional.normalize(patches.float(), dim=-1))
    return torch.einsum("gxyd,gd->gxy", grid, grid[:, row, column])


# --- pictures: every map lies over the picture as the tower sees it ---------------------------------------------------


def draw_layers(picture: Tensor, maps: Tensor, labels: Sequence[str]) -> Any:
    """The picture and a heat map per layer, ``(L, side, side)``; each has a scale of its own."""
    count = len(maps) + 1
    columns = min(count, 7 if count > 20 else 5)
    figure, axes = _grid(math.ceil(count / columns), columns)
    _show(axes[0], picture, "picture")
    for axis, grid, label in zip(axes[1:count], maps, labels, strict=True):
        _show(axis, picture, label)
        _overlay(axis, picture, grid)
    return figure


def draw_groups(
    picture: Tensor,
    names: Sequence[str],
    attention: Tensor,
    colors: Tensor,
    alike: Tensor,
    cell: tuple[int, int],
    weights: Sequence[float] | None,
) -> Any:
    """A column per layer group: its mean attention, its patches by principal components, and their likeness to one.

    Args:
        attention, alike: ``(G, side, side)``; ``colors (G, side, side, 3)``.
        cell: row and column of the patch the others are compared with.
        weights: of the groups, for the titles.
    """
    figure, axes = _grid(3, len(names) + 1)
    columns = len(names) + 1
    for row, title in enumerate(("attention", "principal components", "likeness to the marked patch")):
        _show(axes[row * columns], picture, title)
    _mark(axes[2 * columns], picture, alike.shape[-1], cell)
    for k, name in enumerate(names):
        weight = "" if weights is None else f"\nweight {weights[k]:.1%}"
        upper, middle, lower = (axes[row * columns + k + 1] for row in range(3))
        _show(upper, picture, stacked(name) + weight)
        _overlay(upper, picture, attention[k])
        _show(middle, picture, "")
        middle.imshow(colors[k].numpy(), extent=_extent(picture), interpolation="nearest")
        _show(lower, picture, "")
        lower.imshow(alike[k].numpy(), extent=_extent(picture), cmap="magma", vmin=-0.2, vmax=1, alpha=0.85)
        _mark(lower, picture, alike.shape[-1], cell)
    return figure


def draw_weighed(picture: Tensor, names: Sequence[str], weights: Sequence[float], mixed: Tensor, question: str) -> Any:
    """The question, its layer weights, and the groups' attention mixed by them, ``(side, side)``."""
    figure = new_figure(10, 3.8)
    left, middle, right = figure.subplots(1, 3)
    _show(left, picture, "picture")
    bars = middle.barh(range(len(names)), list(weights), color="C0")
    middle.bar_label(bars, [f"{weight:.1%}" for weight in weights], padding=3, fontsize=9)
    middle.set_yticks(range(len(names)), map(stacked, names))
    middle.invert_yaxis()
    middle.set_xlim(0, max(weights) * 1.3)
    middle.set_xlabel("weight of the layer group")
    middle.spines[["top", "right"]].set_visible(False)
    _show(right, picture, "attention, mixed by the weights")
    _overlay(right, picture, mixed)
    shown = "".join(c if c.isprintable() else " " for c in question)  # fonts have no control characters
    figure.suptitle(shown if len(shown) < 110 else f"{shown[:109]}…", fontsize=11, parse_math=False)
    return figure


def _grid(rows: int, columns: int) -> tuple[Any, list[Any]]:
    figure = new_figure(2.05 * columns, 2.3 * rows)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes:
        axis.axis("off")
    return figure, axes


def _extent(picture: Tensor) -> tuple[float, float, float, float]:
    return (0, picture.shape[1], picture.shape[0], 0)


def _show(axis: Any, picture: Tensor, title: str) -> None:
    axis.axis("off")
    axis.imshow(picture.numpy(), extent=_extent(picture))
    axis.set_title(title, fontsize=9)


def _overlay(axis: Any, picture: Tensor, grid: Tensor) -> None:
    """Weak attention dims the picture, strong attention colours it."""
    axis.imshow(
        grid.numpy(),
        extent=_extent(picture),
        cmap="inferno",
        vmin=0,
        vmax=max(float(grid.max()), 1e-12),
        alpha=0.72,
        interpolation="bilinear",
    )


def _mark(axis: Any, picture: Tensor, side: int, cell: tuple[int, int]) -> None:
    height, width = picture.shape[0] / side, picture.shape[1] / side
    x, y = (cell[1] + 0.5) * width, (cell[0] + 0.5) * height
    axis.plot(
        [x], [y], marker="s", markersize=7, markerfacecolor="none", markeredgecolor="#00e5ff", markeredgewidth=1.6
    )
