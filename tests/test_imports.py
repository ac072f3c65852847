"""Imports go one way: cli → study → eval, train; serve → answering, building, checkpoints, probe → data → model."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import igva
from igva.cli import main as cli

SOURCE = Path(igva.__file__).parent

# Room -> floor. An import goes down, below floor APART_FROM also to the same; a new room has to be entered here.
FLOORS = {
    **dict.fromkeys(
        (
            "eight_bits",
            "errors",
            "files",
            "imagenet",
            "layer_names",
            "paths",
            "resume",
            "seal",
            "tables",
            "untrusted",
            "versions",
        ),
        0,
    ),
    "model": 1,
    **dict.fromkeys(("registration", "model_settings", "recipes", "weights"), 2),
    **dict.fromkeys(("parts", "testing", "timm_models"), 3),
    "part_sources": 4,
    "ensembles": 5,
    "plot": 5,
    **dict.fromkeys(("data", "model_card"), 6),
    "building": 7,
    "checkpoints": 8,
    **dict.fromkeys(("answering", "attention"), 9),
    **dict.fromkeys(("answer_plot", "probe"), 10),
    **dict.fromkeys(("train", "eval", "serve"), 11),
    **dict.fromkeys(("hub", "study"), 12),
    "cli": 13,
    "__main__": 14,
}
# From this floor up nothing imports its neighbours.
APART_FROM = 1


def imports(path: Path) -> set[str]:
    """Every module a file imports, wherever the statement stands, by its absolute name."""
    package = ["igva", *path.relative_to(SOURCE).parts[:-1]]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            # `from igva import paths` names a module, `from igva.answering import load` does not
            found |= {
                f"{module}.{alias.name}" if module in ("igva", ".".join(package)) else module for alias in node.names
            }
    return found


def room(name: str) -> str | None:
    """``igva.data.images`` → ``data``; None for what is not a room of ours (``igva.__version__``)."""
    parts = name.split(".")
    if parts[0] != "igva" or len(parts) < 2:
        return None
    known = (SOURCE / parts[1]).is_dir() or (SOURCE / f"{parts[1]}.py").exists()
    return parts[1] if known else None


def edges() -> dict[tuple[str, str], list[str]]:
    """(room, imported room) → the files that say so."""
    found: dict[tuple[str, str], list[str]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        relative = path.relative_to(SOURCE)
        here = relative.parts[0].removesuffix(".py")
        if here == "__init__":
            continue
        for there in filter(None, map(room, imports(path))):
            if there != here:
                found.setdefault((here, there), []).append(str(relative))
    return found


def test_every_room_has_a_floor():
    rooms = {path.name.removesuffix(".py") for path in SOURCE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert rooms - {"__init__", "__pycache__"} - {p.name for p in SOURCE.glob("py.typed")} <= FLOORS.keys()


def test_no_import_goes_up():
    found = edges()
    assert ("train", "model") in found and ("cli", "train") in found  # the walk sees something
    up = {f"{a} imports {b}": files for (a, b), files in found.items() if FLOORS[b] > FLOORS[a]}
    assert not up
    aside = {f"{a} imports {b}": f for (a, b), f in found.items() if FLOORS[b] == FLOORS[a] >= APART_FROM}
    assert not aside


def test_no_file_imports_itself_by_a_detour():
    names = {".".join(["igva", *p.relative_to(SOURCE).with_suffix("").parts]): p for p in SOURCE.rglob("*.py")}
    graph = {name: {other for other in imports(path) if other in names} for name, path in names.items()}
    assert graph["igva.cli.train"]
    TopologicalSorter(graph).prepare()  # CycleError names the files


def test_the_model_room_stands_alone():
    """It also travels as remote code: only what transformers needs itself, and its own files by relative import."""
    allowed = {"torch", "transformers", "PIL"} | sys.stdlib_module_names
    for path in sorted((SOURCE / "model").rglob("*.py")):
        assert path.parent == SOURCE / "model", "the model room is flat"
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert {alias.name.split(".")[0] for alias in node.names} <= allowed, path.name
            elif isinstance(node, ast.ImportFrom):
                if node.level:
                    assert node.level == 1 and (path.parent / f"{node.module}.py").exists(), path.name
                else:
                    assert node.module.split(".")[0] in allowed, path.name


def verbs() -> list[str]:
    return [verb for verb in cli.VERBS if importlib.util.find_spec(f"igva.cli.{verb}")]


HELP = """
import sys
from igva.cli import main
main.VERBS = tuple(sys.argv.pop(1).split(","))
try:
    code = main.entry()
except SystemExit as error:
    code = error.code
heavy = [name for name in ("torch", "transformers", "numpy", "PIL", "yaml") if name in sys.modules]
print("HEAVY", heavy)
sys.exit(code)
"""


@pytest.mark.parametrize("verb", [None, *verbs()])
def test_help_loads_nothing_heavy(verb):
    arguments = [verb, "--help"] if verb else ["--help"]
    done = subprocess.run(
        [sys.executable, "-c", HELP, ",".join(verbs()), *arguments], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: igva")
    assert "HEAVY []" in done.stdout
    if verb is None:
        assert all(name in done.stdout for name in verbs())
