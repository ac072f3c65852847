"""A picture of a data set: how long its samples are, how large its pictures, how many of each kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from igva.data.verify import Findings
from igva.errors import UserError


def plot_findings(found: Findings, path: Path) -> None:
    """Draw the findings to an image file.

    Raises:
        UserError: matplotlib is missing, or the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError("--plot needs matplotlib: pip install 'igva[plot]'") from error

    figure = Figure(figsize=(13, 4.6), layout="constrained")
    lengths, sizes, counts = figure.subplots(1, 3)
    _draw_lengths(lengths, found)
    _draw_sizes(sizes, found)
    _draw_counts(counts, found)
    for axis in (lengths, sizes, counts):
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(found.source, ha="left", x=0.02, fontsize=12, parse_math=False)
    try:
        figure.savefig(path, dpi=110)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be written: {error}") from error


def _draw_lengths(axis: Any, found: Findings) -> None:
    axis.hist(found.tokens, bins=40)
    axis.set_xlabel("tokens per sample" + (", estimated from the characters" if found.estimated else ""))
    axis.set_ylabel("samples")
    if not found.estimated and found.over_length:
        axis.axvline(found.max_length, color="black", linestyle=":", label="max_length")
        axis.legend()


def _draw_sizes(axis: Any, found: Findings) -> None:
    widths, heights = zip(*found.sizes, strict=True) if found.sizes else ((), ())
    axis.scatter(widths, heights, s=8, alpha=0.4, linewidths=0, rasterized=True)
    if found.sizes:
        axis.set_xscale("log", base=2)
        axis.set_yscale("log", base=2)
    axis.set_xlabel("width of the picture in pixels")
    axis.set_ylabel("height")


def _draw_counts(axis: Any, found: Findings) -> None:
    counts = {
        "text only": found.text_only,
        "one picture": found.one_picture,
        "several pictures": found.several_pictures,
        "several turns": found.several_turns,
        **{name: len(cases) for name, cases in found.broken().items()},
    }
    bars = axis.barh(list(counts), list(counts.values()))
    axis.bar_label(bars, [f"{value:,}" for value in counts.values()], padding=3)
    axis.invert_yaxis()
    axis.margins(x=0.15)
    axis.set_xlabel("samples and pictures")
