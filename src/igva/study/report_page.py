"""The HTML page of a study: self-contained, sortable tables, light and dark, readable on a phone."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Sequence
from html import escape
from typing import Any

from igva.study.report_parts import Cell, Figure, Table, format_column, is_numeric

_STYLE = """
:root { color-scheme: light dark; --text: #1d2126; --soft: #5b6570; --line: #d9dee3; --page: #fff; --head: #f4f6f8; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e4e8ec; --soft: #9aa5b1; --line: #39414a; --page: #15191d; --head: #1f252b; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.25rem clamp(1rem, 4vw, 2.5rem) 4rem; max-width: 76rem; background: var(--page);
  color: var(--text); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: .5rem 0 1rem; }
h2 { font-size: 1.1rem; margin: 2.4rem 0 .6rem; }
p { max-width: 46rem; margin: .5rem 0; overflow-wrap: anywhere; }
.note { color: var(--soft); font-size: .88rem; }
.wide { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; }
table { border-collapse: collapse; min-width: 100%; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { padding: .38rem .75rem; text-align: left; border-top: 1px solid var(--line); vertical-align: top; }
thead th { border-top: 0; background: var(--head); padding: 0; white-space: nowrap; }
tbody th { font-weight: 500; }
.number { text-align: right; white-space: nowrap; }
th button { all: unset; box-sizing: border-box; width: 100%; padding: .45rem .75rem; cursor: pointer;
  font-weight: 600; }
th button:focus-visible { outline: 2px solid currentColor; outline-offset: -2px; }
th button::after { content: "\\2195"; color: var(--soft); opacity: .5; margin-left: .4em; }
th[aria-sort=ascending] button::after { content: "\\2191"; opacity: 1; }
th[aria-sort=descending] button::after { content: "\\2193"; opacity: 1; }
figure { margin: 0; }
img { display: block; max-width: 100%; height: auto; background: #fff; border-radius: 6px; }
pre { overflow-x: auto; padding: .8rem 1rem; background: var(--head); border-radius: 6px; font-size: .82rem; }
summary { cursor: pointer; }
@media (max-width: 40rem) { body { font-size: 15px; } th, td { padding: .35rem .5rem; } }
@media print { th button::after { content: none; } .wide { overflow: visible; } }
"""

# Empty cells stay last whichever way a column is sorted.
_SCRIPT = """
for (const button of document.querySelectorAll("thead button")) button.onclick = () => {
  const head = button.parentElement, body = head.closest("table").tBodies[0];
  const up = head.getAttribute("aria-sort") !== "ascending", place = head.cellIndex;
  const key = row => row.cells[place].dataset.v ?? row.cells[place].textContent;
  const numeric = head.classList.contains("number");
  const rows = [...body.rows].sort((a, b) => {
    const [x, y] = [key(a), key(b)];
    if (!x || !y) return !x - !y;
    const order = numeric ? x - y : x.localeCompare(y);
    return up ? order : -order;
  });
  for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  body.append(...rows);
};
"""

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def page(
    title: str,
    summary: Sequence[str],
    tables: Sequence[Table],
    pictures: Sequence[tuple[Figure, bytes]],
    settings: dict[str, Any],
    versions: dict[str, str],
) -> str:
    """The page; every text is escaped, every picture (PNG bytes) is inside."""
    facts = json.dumps({"settings": settings, "versions": versions}, indent=1, ensure_ascii=False, default=str)
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><main>",
        f"<h1>{escape(title)}</h1>",
        *(f"<p>{escape(paragraph)}</p>" for paragraph in summary),
        *(_figure(figure, png) for figure, png in pictures),
        *(_table(table) for table in tables),
        f"<h2>Settings</h2><details><summary>How this was run</summary><pre>{escape(facts)}</pre></details>",
        f"</main><script>{_SCRIPT}</script></body></html>",
    ]
    return "\n".join(parts) + "\n"


def _figure(figure: Figure, png: bytes) -> str:
    data = base64.b64encode(png).decode()
    note = f'<figcaption class="note">{escape(figure.note)}</figcaption>' if figure.note else ""
    return (
        f"<section><h2>{escape(figure.title)}</h2><figure>"
        f'<img alt="{escape(figure.title)}" src="data:image/png;base64,{data}">{note}</figure></section>'
    )


def _table(table: Table) -> str:
    columns = [[row[c] for row in table.rows] for c in range(len(table.columns))]
    numeric = [is_numeric(column) for column in columns]
    texts = zip(*map(format_column, columns), strict=True)
    head = "".join(
        f'<th scope="col"{_class(right)}><button>{escape(name)}</button></th>'
        for name, right in zip(table.columns, numeric, strict=True)
    )
    body = "\n".join(
        "<tr>" + "".join(map(_cell, range(len(row)), row, text, numeric)) + "</tr>"
        for row, text in zip(table.rows, texts, strict=True)
    )
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    return (
        f'<section><h2>{escape(table.title)}</h2><div class="wide"><table><thead><tr>{head}</tr></thead>\n'
        f"<tbody>{body}</tbody></table></div>{note}</section>"
    )


def _cell(place: int, value: Cell, text: str, numeric: bool) -> str:
    known = isinstance(value, (int, float)) and math.isfinite(value)
    exact = f' data-v="{value if known else ""}"' if numeric else ""
    tag, scope = ("th", ' scope="row"') if place == 0 else ("td", "")
    return f"<{tag}{scope}{_class(numeric)}{exact}>{escape(text)}</{tag}>"


def _class(numeric: bool) -> str:
    return ' class="number"' if numeric else ""
