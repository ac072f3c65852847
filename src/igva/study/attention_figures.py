"""The pictures of the study of attention; every map lies over the picture as the tower sees it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from igva.plot import new_figure


def draw_layers(picture: Tensor, maps: Tensor, layers: Sequence[int]) -> Any:
    """The picture and a heat map per layer, ``(L, side, side)``; each has a scale of its own.

    Args:
        layers: their numbers.
    """
    count = len(maps) + 1
    columns = min(count, 7 if count > 20 else 5)
    figure, axes = _grid(math.ceil(count / columns), columns)
    _show(axes[0], picture, "picture")
    for layer, axis, grid in zip(layers, axes[1:count], maps, strict=True):
        _show(axis, picture, f"layer {layer}")
        _overlay(axis, picture, grid)
    return figure


def draw_groups(
    picture: Tensor,
    names: Sequence[str],
    attention: Tensor,
    colors: Tensor,
    alike: Tensor,
    place: tuple[int, int],
    weights: Sequence[float] | None,
) -> Any:
    """A column per layer group: its mean attention, its patches by principal components, and their likeness to one.

    Args:
        attention, alike: ``(G, side, side)``; ``colors (G, side, side, 3)``.
        place: row and column of the patch the others are compared with.
        weights: of the groups, for the titles.
    """
    figure, axes = _grid(3, len(names) + 1)
    columns = len(names) + 1
    for row, title in enumerate(("attention", "principal components", "likeness to the marked patch")):
        _show(axes[row * columns], picture, title)
    _mark(axes[2 * columns], picture, alike.shape[-1], place)
    for k, name in enumerate(names):
        weight = "" if weights is None else f"\nweight {weights[k]:.1%}"
        upper, middle, lower = (axes[row * columns + k + 1] for row in range(3))
        _show(upper, picture, name + weight)
        _overlay(upper, picture, attention[k])
        _show(middle, picture, "")
        middle.imshow(colors[k].numpy(), extent=_extent(picture), interpolation="nearest")
        _show(lower, picture, "")
        lower.imshow(alike[k].numpy(), extent=_extent(picture), cmap="magma", vmin=-0.2, vmax=1, alpha=0.85)
        _mark(lower, picture, alike.shape[-1], place)
    return figure


def draw_weighed(picture: Tensor, names: Sequence[str], weights: Sequence[float], mixed: Tensor, question: str) -> Any:
    """The question, its layer weights, and the groups' attention mixed by them, ``(side, side)``."""
    figure = new_figure(10, 3.8)
    left, middle, right = figure.subplots(1, 3)
    _show(left, picture, "picture")
    bars = middle.barh(range(len(names)), list(weights), color="C0")
    middle.bar_label(bars, [f"{weight:.1%}" for weight in weights], padding=3, fontsize=9)
    middle.set_yticks(range(len(names)), names)
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


def _mark(axis: Any, picture: Tensor, side: int, place: tuple[int, int]) -> None:
    height, width = picture.shape[0] / side, picture.shape[1] / side
    x, y = (place[1] + 0.5) * width, (place[0] + 0.5) * height
    axis.plot(
        [x], [y], marker="s", markersize=7, markerfacecolor="none", markeredgecolor="#00e5ff", markeredgewidth=1.6
    )
