"""A picture of an answer: what was asked about what, and how the layers were weighed."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from igva.answering import Answer
from igva.plot import new_figure, save_figure, stacked


def plot_answer(pictures: Sequence[Image.Image], question: str, result: Answer, path: Path) -> None:
    """Draw the pictures, the question, the answer and the layer weights to an image file.

    Raises:
        UserError: matplotlib is missing, or the file cannot be written.
    """
    columns = len(pictures) + 1
    figure = new_figure(4.2 * columns, 4.6)
    axes = figure.subplots(1, columns)
    for axis, picture in zip(axes[:-1], pictures, strict=True):
        axis.imshow(picture)
        axis.axis("off")
    _draw_weights(axes[-1], result)
    printable = "".join(c if c.isprintable() else " " for c in result.answer)  # fonts have no control characters
    words = textwrap.shorten(printable, 240, placeholder=" …") or "(no words)"
    lines = [*textwrap.wrap(f"Q: {question}", 42 * columns), *textwrap.wrap(f"A: {words}", 42 * columns)]
    figure.suptitle("\n".join(lines), ha="left", x=0.02, fontsize=12)
    save_figure(figure, path)


def _draw_weights(axis: Any, result: Answer) -> None:
    if result.layer_weights is None:
        axis.axis("off")
        axis.text(0.5, 0.5, "this fusion has\nno layer weights", ha="center", va="center")
        return
    rows = result.weight_rows()
    labels = list(map(stacked, result.group_labels()))
    height = 0.8 / len(rows)
    for number, row in enumerate(rows):
        places = [i + number * height for i in range(len(row))]
        bars = axis.barh(places, row, height=height, label=f"picture {number + 1}")
        axis.bar_label(bars, [f"{value:.0%}" for value in row], padding=3)
    axis.set_yticks([i + 0.4 - height / 2 for i in range(len(labels))], labels)
    axis.invert_yaxis()
    axis.set_xlim(0, 1)
    axis.set_xlabel("weight of the layer group")
    if len(rows) > 1:
        axis.legend()
    axis.spines[["top", "right"]].set_visible(False)
