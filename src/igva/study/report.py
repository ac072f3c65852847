"""A study's results as files: tables (CSV and JSON), pictures, and one HTML page that needs nothing else."""

from __future__ import annotations

import csv
import importlib.metadata
import io
import json
import math
import platform
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from igva.checkpoints.store import write_errors
from igva.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure as MatplotlibFigure

Cell = str | int | float | None
DPI = 130


@dataclass
class Table:
    """Numbers of a study.

    Attributes:
        name: of its files.
        rows: one list per row, as long as ``columns``; None is an empty cell.
        note: what the columns mean, in a sentence.
    """

    name: str
    title: str
    columns: list[str]
    rows: list[list[Cell]]
    note: str = ""


@dataclass
class Figure:
    """A picture of a study; ``name`` is that of its file."""

    name: str
    title: str
    figure: MatplotlibFigure
    note: str = ""


def write_report(
    out: Path,
    *,
    title: str,
    summary: Sequence[str],
    tables: Sequence[Table],
    figures: Sequence[Figure],
    settings: dict[str, Any],
) -> Path:
    """Write a file per table and picture, ``study.json`` and ``report.html``; returns the path of the latter.

    The same arguments give the same bytes: there is no date in them.

    Args:
        summary: paragraphs of plain text that say what was found.
        settings: what the study was run with, as JSON values.

    Raises:
        UserError: the folder cannot be written.
    """
    from igva.study.report_page import page

    _check_names([table.name for table in tables])
    _check_names([figure.name for figure in figures])
    pictures = [(figure, _png(figure.figure)) for figure in figures]
    facts = {"title": title, "summary": list(summary), "settings": settings, "versions": versions()}
    with write_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        for table in tables:
            write_file(out / f"{table.name}.csv", _csv(table).encode())
            write_file(out / f"{table.name}.json", _json(_plain(table)))
        for figure, png in pictures:
            write_file(out / f"{figure.name}.png", png)
        write_file(out / "study.json", _json(facts))
        write_file(out / "report.html", page(title, summary, tables, pictures, settings, versions()).encode())
    return out / "report.html"


def write_file(path: Path, content: bytes) -> None:
    """Write under a temporary name, then rename: nobody sees half a file."""
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(content)
    part.replace(path)


def versions() -> dict[str, str]:
    """What the numbers were computed with."""
    packages = ("igva", "torch", "transformers", "matplotlib")
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in packages}


def text_table(table: Table) -> str:
    """Aligned plain text for the terminal; numbers to the right."""
    cells = [table.columns, *zip(*(format_column(column) for column in _columns(table)), strict=True)]
    numeric = [is_numeric(column) for column in _columns(table)]
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


def _columns(table: Table) -> list[list[Cell]]:
    return [[row[c] for row in table.rows] for c in range(len(table.columns))]


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        if not re.fullmatch(r"[\w-]+", name) or name in ("study", "report"):
            raise ValueError(f"{name!r} cannot name a file of a report: use letters, digits, _ and -")
    if len(set(names)) != len(names):
        raise ValueError(f"two parts of a report have the same name: {list(names)}")


def _png(figure: MatplotlibFigure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def _csv(table: Table) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([table.columns, *table.rows])
    return buffer.getvalue()


def _plain(table: Table) -> dict[str, Any]:
    return {
        "name": table.name,
        "title": table.title,
        "columns": table.columns,
        "rows": [[None if isinstance(v, float) and not math.isfinite(v) else v for v in row] for row in table.rows],
        "note": table.note,
    }


def _json(value: Any) -> bytes:
    try:
        return (json.dumps(value, indent=1, ensure_ascii=False, default=str) + "\n").encode()
    except UnicodeEncodeError as error:
        raise UserError(f"the text of the report holds half a character (a lone surrogate): {error}") from error
