"""Tables of numbers as aligned text, and how a column of numbers is written."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

Cell = str | int | float | None


@dataclass
class Table:
    """Numbers in rows and columns.

    Attributes:
        name: of the files it is written to.
        rows: one list per row, as long as ``columns``; None is an empty cell.
        note: what the columns mean, in a sentence.
    """

    name: str
    title: str
    columns: list[str]
    rows: list[list[Cell]]
    note: str = ""


def text_table(table: Table) -> str:
    """Aligned plain text for the terminal; numbers to the right."""
    cells = [table.columns, *zip(*(format_column(column) for column in columns_of(table)), strict=True)]
    numeric = [is_numeric(column) for column in columns_of(table)]
    widths = [max(len(row[c]) for row in cells) for c in range(len(table.columns))]
    lines = [
        "  ".join(
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in cells
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([table.title, *lines, *textwrap.wrap(table.note, 100)])


def format_column(values: Sequence[Cell]) -> list[str]:
    """The cells of a column as text: four significant digits at most, the same number of decimals in all of them."""
    decimals = max((_decimals(value) for value in values if isinstance(value, float)), default=0)
    return [_format(value, decimals) for value in values]


def is_numeric(values: Sequence[Cell]) -> bool:
    """Whether a column holds numbers only, empty cells aside."""
    present = [value for value in values if value is not None]
    return bool(present) and all(isinstance(value, (int, float)) for value in present)


def _decimals(value: float) -> int:
    text = f"{value:.4g}"
    return min(4, len(text.partition(".")[2])) if "e" not in text else 4 * (abs(value) < 1)


def _format(value: Cell, decimals: int) -> str:
    if value is None:
        return ""
    if not isinstance(value, float) or not math.isfinite(value):
        return str(value)
    if 0 < abs(value) < 0.5 * 10**-decimals:  # would read as zero
        return f"{value:.1e}"
    return f"{value:.{decimals}f}"


def columns_of(table: Table) -> list[list[Cell]]:
    """The cells column by column."""
    return [[row[c] for row in table.rows] for c in range(len(table.columns))]
