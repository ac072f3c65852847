"""What all figures share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from igva.errors import UserError

# Layer groups from low to high: a light-to-dark scale that survives grey print and colour blindness.
LOW_TO_HIGH = "YlGnBu"


def stacked(label: str) -> str:
    """The label of a layer group for an axis: each of several encoders on a line of its own."""
    return label.replace(" + ", " +\n")


def new_figure(width: float, height: float) -> Any:
    """An empty matplotlib ``Figure`` of that many inches.

    Raises:
        UserError: matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError("drawing needs matplotlib: pip install 'igva[plot]'") from error
    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure to an image file of the kind its ending names.

    Raises:
        UserError: the file cannot be written, or there is no such kind.
    """
    try:
        figure.savefig(path, dpi=110)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be written: {error}") from error
