"""A study's results as files: tables (CSV and JSON), pictures, and one HTML page that needs nothing else."""

from __future__ import annotations

import csv
import importlib.metadata
import io
import json
import math
import platform
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from igva.checkpoints.store import write_errors
from igva.errors import UserError
from igva.study.report_page import page
from igva.study.report_parts import Cell, Figure, Table, text_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure as MatplotlibFigure

__all__ = ["Cell", "Figure", "Table", "text_table", "versions", "write_file", "write_report"]

DPI = 130


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
