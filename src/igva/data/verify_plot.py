"""A picture of a data set: how long its samples are, how large its pictures, how many of each kind."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from igva.data.verify import Findings
from igva.plot import new_figure, save_figure


def plot_findings(findings: Findings, path: Path) -> None:
    """Draw the findings to an image file.

    Raises:
        UserError: matplotlib is missing, or the file cannot be written.
    """
    figure = new_figure(13, 4.6)
    lengths, sizes, counts = figure.subplots(1, 3)
    _draw_lengths(lengths, findings)
    _draw_sizes(sizes, findings)
    _draw_counts(counts, findings)
    for axis in (lengths, sizes, counts):
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(findings.source, ha="left", x=0.02, fontsize=12, parse_math=False)
    save_figure(figure, path)


def _draw_lengths(axis: Any, findings: Findings) -> None:
    axis.hist(findings.tokens, bins=40)
    axis.set_xlabel("tokens per sample" + (", estimated from the characters" if findings.estimated else ""))
    axis.set_ylabel("samples")
    if not findings.estimated and findings.over_length:
        axis.axvline(findings.max_length, color="black", linestyle=":", label="max_length")
        axis.legend()


def _draw_sizes(axis: Any, findings: Findings) -> None:
    """A dot per size, its area by the number of pictures; both axes alike, so that squares lie on the diagonal."""
    axis.set_xlabel("width of the pictures in pixels")
    axis.set_ylabel("height")
    if not findings.sizes:
        return
    counts = Counter(findings.sizes)
    most = max(counts.values())
    areas = [8 + 92 * count / most for count in counts.values()]
    axis.scatter(*zip(*counts, strict=True), s=areas, alpha=0.5, linewidths=0)
    sides = [side for size in counts for side in size]
    span = (min(sides) / 2, max(sides) * 2)
    axis.set(xscale="log", yscale="log", xlim=span, ylim=span)
    ticks = [4**power for power in range(9) if span[0] <= 4**power <= span[1]]
    for scale in (axis.xaxis, axis.yaxis):
        scale.set_ticks(ticks, [str(tick) for tick in ticks])
        scale.set_ticks([], minor=True)


def _draw_counts(axis: Any, findings: Findings) -> None:
    counts = {
        "text only": findings.text_only,
        "one picture": findings.one_picture,
        "several pictures": findings.several_pictures,
        "several turns": findings.several_turns,
        **{name: len(cases) for name, cases in findings.broken().items()},
    }
    bars = axis.barh(list(counts), list(counts.values()))
    axis.bar_label(bars, [f"{value:,}" for value in counts.values()], padding=3)
    axis.invert_yaxis()
    axis.margins(x=0.15)
    axis.set_xlabel("samples and pictures")
