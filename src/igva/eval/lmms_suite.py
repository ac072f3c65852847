"""Which benchmarks of lmms-eval are run together, and under which category each is shown."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from igva.errors import UserError

SUITES = Path(__file__).parent / "suites"
CATEGORIES = ("General", "Knowledge", "Chart & OCR", "Vision-Centric", "Fine-Grained", "Hallucination")
UNSORTED = "Other"  # tasks that were named on the command line and stand in no suite


@dataclass(frozen=True)
class Benchmark:
    """One line of a suite file; ``suites/paper.yaml`` says what each field means."""

    task: str
    title: str = ""
    category: str = UNSORTED
    metric: str = ""  # empty: the task's first
    full: float = 1.0
    judge: bool | None = None  # None: as the names of the task's metrics say
    rows: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.title or self.task


def packaged() -> list[str]:
    """The names of the suites that come with igva."""
    return sorted(path.stem for path in SUITES.glob("*.yaml"))


def read_suite(said: str) -> list[Benchmark]:
    """A packaged suite's name, the path of a suite file, or lmms-eval's task names with commas → its benchmarks.

    Task names that stand in ``paper`` keep their title, category, and metric.

    Raises:
        UserError: no such file, a field that does not exist, a category that is none, a task twice.
    """
    if said in packaged():
        return _read(SUITES / f"{said}.yaml")
    if said.endswith((".yaml", ".yml")):
        if not Path(said).is_file():
            raise UserError(f"there is no suite file {said}; the suites of igva are {', '.join(packaged())}")
        return _read(Path(said))
    known = {benchmark.task: benchmark for benchmark in _read(SUITES / "paper.yaml")}
    names = [name.strip() for name in said.split(",") if name.strip()]
    if not names:
        raise UserError(f"no task is named: say a suite ({', '.join(packaged())}) or tasks, as in lmms:pope,mme")
    return [known.get(name, Benchmark(name)) for name in dict.fromkeys(names)]


def _read(path: Path) -> list[Benchmark]:
    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    entries = content.get("tasks") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{path} has no list `tasks`; src/igva/eval/suites/paper.yaml shows its form")
    benchmarks = [_benchmark(entry, path) for entry in entries]
    names = [benchmark.task for benchmark in benchmarks]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"{path} names {twice[0]} twice")
    return benchmarks


def _benchmark(entry: Any, path: Path) -> Benchmark:
    allowed = {f.name for f in fields(Benchmark)}
    if not isinstance(entry, dict) or not isinstance(entry.get("task"), str):
        raise UserError(f"{path}: each entry of `tasks` needs a `task`, the name in lmms-eval, not {entry!r}")
    if unknown := sorted(set(entry) - allowed):
        raise UserError(f"{path}, {entry['task']}: there is no field {unknown[0]!r}; there are {', '.join(allowed)}")
    benchmark = Benchmark(**entry)
    if benchmark.category not in (*CATEGORIES, UNSORTED):
        raise UserError(f"{path}, {benchmark.task}: category {benchmark.category!r} is none of {', '.join(CATEGORIES)}")
    if not isinstance(benchmark.full, (int, float)) or benchmark.full <= 0:
        raise UserError(f"{path}, {benchmark.task}: full must be a number above 0, not {benchmark.full!r}")
    return benchmark
