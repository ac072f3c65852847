"""A study's results as files: tables (CSV and JSON), pictures, and one HTML page that needs nothing else."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from igva.errors import UserError
from igva.files import write_errors, write_file
from igva.tables import Cell, Table, columns_of, format_column, is_numeric
from igva.versions import versions

if TYPE_CHECKING:
    from matplotlib.figure import Figure as MatplotlibFigure

DPI = 130


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
    _check_names([table.name for table in tables])
    _check_names([figure.name for figure in figures])
    pictures = [(figure, _png(figure.figure)) for figure in figures]
    facts = {"title": title, "summary": list(summary), "settings": settings, "versions": versions("matplotlib")}
    with write_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        for table in tables:
            write_file(out / f"{table.name}.csv", _csv(table).encode())
            write_file(out / f"{table.name}.json", _json(_plain(table)))
        for figure, png in pictures:
            write_file(out / f"{figure.name}.png", png)
        write_file(out / "study.json", _json(facts))
        write_file(out / "report.html", _page(title, summary, tables, pictures, facts).encode())
    return out / "report.html"


def _page(
    title: str,
    summary: Sequence[str],
    tables: Sequence[Table],
    pictures: Sequence[tuple[Figure, bytes]],
    facts: dict[str, Any],
) -> str:
    """The HTML page, with every picture (PNG bytes) inside."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    shown = {name: facts[name] for name in ("settings", "versions")}
    return environment.get_template("report.html.j2").render(
        title=title,
        summary=summary,
        pictures=[(figure, base64.b64encode(png).decode()) for figure, png in pictures],
        tables=[_shown(table) for table in tables],
        facts=json.dumps(shown, indent=1, ensure_ascii=False, default=str),
    )


def _shown(table: Table) -> dict[str, Any]:
    """A table as the page's template wants it: each cell with its text, and its exact number to sort by."""
    columns = columns_of(table)
    numeric = list(map(is_numeric, columns))
    texts = zip(*map(format_column, columns), strict=True)
    return {
        "title": table.title,
        "note": table.note,
        "heads": list(zip(table.columns, numeric, strict=True)),
        "rows": [
            [
                {"text": text, "numeric": of_numbers, "exact": value if _is_finite(value) else ""}
                for value, text, of_numbers in zip(row, written, numeric, strict=True)
            ]
            for row, written in zip(table.rows, texts, strict=True)
        ],
    }


def _is_finite(value: Cell) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


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
