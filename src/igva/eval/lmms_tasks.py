"""lmms-eval's tasks as they are run here: the official configuration, and what a user or a suite changes in it."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from lmms_eval.api.task import ConfigurableMessagesTask
from lmms_eval.tasks import TaskManager
from lmms_eval.utils import load_yaml_config

from igva.errors import UserError
from igva.eval.lmms_suite import Benchmark

_JUDGED = ("gpt", "llm", "judge")  # in the metric names of lmms-eval's tasks that ask a language model


class _Catalog(TaskManager):
    """lmms-eval's index; a task that is given by its configuration becomes one that asks in chats."""

    def load_config(self, config: dict[str, Any]) -> dict[str, Any]:
        # The inherited method makes a task whose requests have no messages.
        return {config["task"]: config.get("class", ConfigurableMessagesTask)(config=config, model_name="igva")}


class Tasks:
    """Every task of lmms-eval, and those of a user's folder.

    A file of ``include_path`` whose ``task`` is one of lmms-eval's own changes that task: its keys replace the
    official ones, the rest stays. lmms-eval by itself would ignore the file.

    Args:
        include_path: a folder of task files; relative ``data_files`` in them are relative to their file.
    """

    def __init__(self, include_path: Path | None = None) -> None:
        if include_path is not None and not include_path.is_dir():
            raise UserError(f"--include-path {include_path} is not a folder: name the one that holds the task files")
        self._changes = _task_files(include_path) if include_path else {}
        self.manager = _Catalog(include_path=str(include_path) if include_path else None, model_name="igva")

    def expand(self, benchmark: Benchmark) -> list[Benchmark]:
        """The tasks behind a name: itself, or the members of a group or tag.

        Raises:
            UserError: there is no such task; the message has near matches.
        """
        entry = self.manager.task_index.get(benchmark.task)
        if entry is None:
            near = difflib.get_close_matches(benchmark.task, self.manager.all_tasks, n=4)
            hint = f"did you mean {', '.join(near)}?" if near else "`lmms-eval tasks list` names them"
            raise UserError(f"lmms-eval has no task {benchmark.task!r}: {hint}")
        if entry["type"] in ("task", "python_task"):
            return [benchmark]
        members = entry["task"] if entry["task"] != -1 else load_yaml_config(entry["yaml_path"])["task"]
        names = [member if isinstance(member, str) else member["task"] for member in members]
        return [leaf for name in names for leaf in self.expand(replace(benchmark, task=name, title=""))]

    def config(self, benchmark: Benchmark) -> dict[str, Any]:
        """The whole configuration of a task, functions included."""
        path = self.manager.task_index[benchmark.task]["yaml_path"]
        config = {**load_yaml_config(path, mode="full"), **self._changes.get(benchmark.task, {})}
        if benchmark.rows:
            config["process_docs"] = _Rows(benchmark.rows, config.get("process_docs"))
        return config


def needs_judge(benchmark: Benchmark, config: dict[str, Any]) -> bool:
    """Whether a language model has to grade the answers: the suite says it, else the metrics' names do."""
    if benchmark.judge is not None:
        return benchmark.judge
    names = [str(entry.get("metric")) for entry in config.get("metric_list") or []]
    return any(word in name for name in names for word in _JUDGED)


def has_judge() -> bool:
    """Whether lmms-eval's environment variables name a language model that grades."""
    kind = os.environ.get("API_TYPE", "openai").lower()
    keys = {"openai": "OPENAI_API_KEY", "async_openai": "OPENAI_API_KEY"}
    keys |= {"azure": "AZURE_API_KEY", "async_azure": "AZURE_API_KEY"}
    return bool(os.environ.get(keys[kind])) if kind in keys else kind in ("bedrock", "local")


def without_scores(config: dict[str, Any]) -> dict[str, Any]:
    """The same questions, of which only the answers are kept."""
    return {**config, "process_results": _no_scores, "metric_list": []}


def described(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration as plain values that are equal exactly where the questions and the scoring are.

    A function is its name; a local data file is its path, size, and time of change.
    """
    plain = {key: _plain(value) for key, value in sorted(config.items()) if value is not None}
    files = (config.get("dataset_kwargs") or {}).get("data_files")
    return {**plain, "data_files_state": _file_states(files)} if files else plain


class _Rows:
    """Keeps the rows whose columns have the wanted values, before what the task itself does to its rows."""

    def __init__(self, wanted: dict[str, Any], then: Callable[[Any], Any] | None) -> None:
        self.wanted, self.then = wanted, then

    def __call__(self, dataset: Any) -> Any:
        columns = list(self.wanted)
        values = list(self.wanted.values())
        # By columns, so that the pictures of the other rows are not decoded.
        kept = dataset.filter(lambda *row: list(row) == values, input_columns=columns)
        return self.then(kept) if self.then else kept


def _no_scores(doc: Any, results: Any) -> dict[str, Any]:
    return {}


def _task_files(folder: Path) -> dict[str, dict[str, Any]]:
    configs = {}
    for path in sorted(folder.rglob("*.yaml")):
        try:
            config = load_yaml_config(str(path), mode="full")
        except Exception as error:  # YAML, an import in a module beside it, a missing include
            raise UserError(f"{path}: {' '.join(str(error).split())}") from error
        if isinstance(config, dict) and isinstance(config.get("task"), str):
            configs[config["task"]] = config
    return configs


def _plain(value: Any) -> Any:
    if isinstance(value, _Rows):
        return {"rows": value.wanted, "then": _plain(value.then)}
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    return f"{value.__module__}.{value.__qualname__}" if hasattr(value, "__qualname__") else type(value).__qualname__


def _file_states(files: Any) -> list[list[Any]]:
    names = files.values() if isinstance(files, dict) else files if isinstance(files, list) else [files]
    flat = [str(name) for entry in names for name in (entry if isinstance(entry, list) else [entry])]
    paths = [Path(name) for name in flat if Path(name).is_file()]
    return [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in paths]
