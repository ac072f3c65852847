"""Writes docs/reference from the code itself: commands, settings of recipes, fusions and their options, Python API.

python tools/reference.py            # a test fails where the pages differ from the code
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import json
import os
import re
import textwrap
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import igva
from igva.cli.main import build_parser
from igva.model.fusions import fusion_class, fusion_names
from igva.train.arguments import Recipe, recipe_names, recipe_summary

OUT = Path(__file__).parent.parent / "docs/reference"
WIDTH = "100"  # of the help texts


def cli_page() -> str:
    """Every verb's --help."""
    os.environ["COLUMNS"] = WIDTH
    lines = ["# Commands", "", "`igva VERB --help` says the same."]
    for name, parser in _parsers(build_parser()):
        lines += ["", f"## {name}", "", "```text", parser.format_help().rstrip(), "```"]
    return "\n".join(lines) + "\n"


def _parsers(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """A parser and all that stand below it, with the words that lead there."""
    yield parser.prog, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _parsers(below)


def settings_page() -> str:
    """Every setting of a recipe."""
    lines = [
        "# Settings of a recipe",
        "",
        "As a YAML file has them, section by section; on the command line `section.name=value`, the value in YAML too:",
        "`optim.seed=2`, `model.attention=null`, `log_to=[tensorboard, trackio]`, `model.fusion_kwargs.num_groups=2`,",
        '`"model={init_from: runs/mine}"` (a whole section). What every setting does: [training](../training.md).',
        "",
        "| packaged recipe | what it is |",
        "|---|---|",
        *(f"| `{name}` | {_cell(recipe_summary(name))} |" for name in recipe_names()),
    ]
    sections = typing.get_type_hints(Recipe)
    own = [field for field in dataclasses.fields(Recipe) if not dataclasses.is_dataclass(sections[field.name])]
    lines += ["", "## The recipe itself", "", *_table(Recipe, own)]
    for name, cls in sections.items():
        if dataclasses.is_dataclass(cls):
            lines += ["", f"## `{name}`", "", inspect.getdoc(cls) or "", "", *_table(cls, dataclasses.fields(cls))]
    return "\n".join(lines) + "\n"


def fusions_page() -> str:
    """Every fusion and its options."""
    lines = ["# Fusions and their options", "", "`model.fusion` names one, `model.fusion_kwargs` holds its options."]
    lines += ["What each does and costs, and how they compare: [fusions](../fusions.md)."]
    for name in fusion_names():
        cls = fusion_class(name)
        lines += ["", f"## `{name}`", "", f"{cls.summary[:1].upper()}{cls.summary[1:]}. Source: {cls.source}.", ""]
        options = dataclasses.fields(cls.config_class)
        lines += _table(cls.config_class, options) if options else ["It has no options."]
    return "\n".join(lines) + "\n"


def api_page() -> str:
    """What `import igva` offers."""
    lines = ["# Python", "", "What `import igva` offers; everything else may change between versions."]
    for name in sorted(igva._PUBLIC):
        thing = getattr(igva, name)
        signature = "" if inspect.isclass(thing) else str(inspect.signature(thing)).replace("'", "")
        lines += ["", f"## `igva.{name}`", "", "```text"]
        lines += textwrap.wrap(f"{name}{signature}", 100, subsequent_indent="    ") if signature else []
        lines += ["", inspect.getdoc(thing) or ""] if signature else [inspect.getdoc(thing) or ""]
        lines += ["```"]
    return "\n".join(lines) + "\n"


def _table(cls: type, fields: Any) -> list[str]:
    meanings = {}
    for base in reversed(cls.__mro__):  # options that are inherited keep the words of the class that has them
        if dataclasses.is_dataclass(base):
            meanings |= _comments(base)
    rows = [
        f"| `{field.name}` | {_cell(_kind(field))} | `{_default(field)}` | {_cell(meanings.get(field.name, ''))} |"
        for field in fields
    ]
    return ["| | type | default | |", "|---|---|---|---|", *rows]


def _comments(cls: type) -> dict[str, str]:
    """Field → the comment above it and behind it."""
    lines = textwrap.dedent(inspect.getsource(cls)).splitlines()
    body = ast.parse("\n".join(lines)).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for node in body.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            above = []
            for line in reversed(lines[: node.lineno - 1]):
                if not line.strip().startswith("#"):
                    break
                above.insert(0, line.strip(" #"))
            behind = lines[node.end_lineno - 1][node.end_col_offset :].strip(" #") if node.end_lineno else ""
            found[node.target.id] = " ".join([*above, *([behind] if behind else [])])
    return found


def _kind(field: dataclasses.Field[Any]) -> str:
    kind = field.type if isinstance(field.type, str) else field.type.__name__
    for words in re.findall(r"Literal\[(.*?)\]", kind):
        kind = kind.replace(f"Literal[{words}]", re.sub("""["']""", "`", words).replace(", ", " or "))
    return kind.replace(" | ", " or ").replace(" or None", " or null")


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default_factory is not dataclasses.MISSING:
        return str(field.default_factory())
    if field.default == "":
        return "(needed)"
    return json.dumps(field.default).strip('"')


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


PAGES = {"cli.md": cli_page, "settings.md": settings_page, "fusions.md": fusions_page, "api.md": api_page}

if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    for file, page in PAGES.items():
        (OUT / file).write_text(page(), encoding="utf-8")
        print(OUT / file)
