"""Run benchmarks of lmms-eval on an igva model, keep every answer, and sort the scores into categories."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

from igva.errors import UserError
from igva.eval.lmms_suite import Benchmark, read_suite
from igva.eval.lmms_table import by_category, text
from igva.files import write_file, write_json
from igva.versions import versions

if TYPE_CHECKING:
    from igva.eval.lmms_model import Igva
    from igva.eval.lmms_tasks import Tasks

RESULTS, ANSWERS, SAMPLES, SUMMARY = "results.json", "answers.jsonl", "samples.jsonl", "lmms.json"


def run_lmms(
    model: str,
    tasks: str,
    out: Path,
    *,
    batch_size: int = 8,
    limit: int | None = None,
    device: str | None = None,
    dtype: str | None = None,
    include_path: Path | None = None,
    max_new_tokens: int = 1024,
) -> dict[str, Any]:
    """Ask a model the questions of lmms-eval's tasks with their official prompts, and score with their scorers.

    Each task has a folder ``out/TASK``: ``answers.jsonl`` (written as the answers come; an interrupted run goes on
    there), ``samples.jsonl`` (question, prompt, answer, score of each) and ``results.json`` (all metrics, settings,
    versions). A finished task is not asked again as long as model, settings, and versions are the same.
    ``out/lmms.json`` has the scores by category. A task that cannot be run or scored is missing, with the reason;
    the others go on.

    Args:
        model: what ``igva.load`` takes.
        tasks: a suite's name or file, or task names with commas.
        limit: only so many questions of each task: for trying out, not for reporting.
        include_path: a folder of task files: one's own tasks, or official ones with local rows.
        max_new_tokens: for tasks that do not say it themselves.

    Returns:
        What ``out/lmms.json`` holds: ``categories``, ``tasks``, ``settings``.

    Raises:
        UserError: lmms-eval is not installed; an unknown task, suite, or model.
    """
    benchmarks = read_suite(tasks)
    _quiet_environment()
    catalog = _catalog(include_path)
    todo = [leaf for benchmark in benchmarks for leaf in catalog.expand(benchmark)]
    out.mkdir(parents=True, exist_ok=True)
    settings = {
        "model": _identity(model),
        "dtype": dtype,
        "device": device or ("cuda" if torch.cuda.is_available() else "cpu"),  # where igva.load puts it
        "limit": limit,
        "max_new_tokens": max_new_tokens,
        "versions": versions("lmms-eval", "datasets"),
    }
    runner = _Runner(catalog, out, settings, {"pretrained": model, "batch_size": batch_size})
    results = {}
    for benchmark in todo:
        results[benchmark.task] = result = runner.result(benchmark)
        if result["missing"]:
            print(f"{benchmark.task}: missing: {result['missing']}", file=sys.stderr)
    summary = {"categories": by_category(todo, results), "tasks": results, "settings": settings}
    write_json(out / SUMMARY, summary)
    print(text(summary["categories"]))
    return summary


class _Runner:
    """One model and its tasks, one after the other; the model is loaded when the first question has to be asked."""

    def __init__(self, catalog: Tasks, out: Path, settings: dict[str, Any], options: dict[str, Any]) -> None:
        self.catalog, self.out, self.settings, self.options = catalog, out, settings, options
        self._model: Igva | None = None

    @property
    def model(self) -> Igva:
        if self._model is None:
            from igva.eval.lmms_model import Igva

            kept = {key: self.settings[key] for key in ("device", "dtype", "max_new_tokens")}
            self._model = Igva(**self.options, **kept)
        return self._model

    def result(self, benchmark: Benchmark) -> dict[str, Any]:
        """A finished task's result from its file, or a new one."""
        from igva.eval.lmms_tasks import described, has_judge, needs_judge, without_scores

        folder = self.out / benchmark.task
        folder.mkdir(exist_ok=True)
        config = self.catalog.config(benchmark)
        judged = needs_judge(benchmark, config)
        # What the answers depend on. Grading is done anew with a judge, or another one, on the same answers.
        settings = {**self.settings, "task": described(config)}
        if (done := _read(folder / RESULTS)) and done["settings"] == settings and not done["missing"]:
            return done
        head: dict[str, Any] = {"task": benchmark.task, "metric": benchmark.metric, "missing": None, "metrics": {}}
        if config.get("output_type", "generate_until") != "generate_until":
            return {
                **head,
                "missing": f"its questions are of type {config['output_type']}, igva answers generate_until",
            }
        if judged and not has_judge():
            config = without_scores(config)
            head["missing"] = "its answers are graded by an LLM and OPENAI_API_KEY is not set; the answers are kept"
        start = time.perf_counter()
        self.model.answers.open(folder / ANSWERS, settings)
        try:
            results = _evaluate(self.model, self.catalog, config, self.settings["limit"], folder)
        except Exception as error:
            (folder / "error.txt").write_text(_trace(error))
            return {**head, "missing": self._reason(error, config)}
        finally:
            self.model.answers.close()
        samples = results["samples"][benchmark.task]
        _write_samples(folder / SAMPLES, samples)
        head["metrics"] = _metrics(results["results"][benchmark.task])
        head["missing"] = head["missing"] or _unusable(benchmark, head["metrics"], samples)
        result = {
            **head,
            "metric": benchmark.metric or next(iter(head["metrics"]), ""),
            "questions": len(samples),
            "seconds": round(time.perf_counter() - start, 1),
            "settings": settings,
        }
        write_json(folder / RESULTS, result)
        return result

    def _reason(self, error: Exception, config: dict[str, Any]) -> str:
        """One line for what went wrong, and what to do about it."""
        while getattr(error, "last_attempt", None) is not None:  # lmms-eval tries to score several times
            error = error.last_attempt.exception()  # type: ignore[attr-defined]
        said = " ".join(str(error).split())
        if isinstance(error, UserError):
            return said
        said = f"{type(error).__name__}: {said[:200]}".removesuffix(": ")
        if self.model.answers.asked:
            return f"its answers could not be scored: {said} (error.txt; the answers are kept)"
        name = config.get("dataset_path")
        return (
            f"its data set {name} cannot be read ({said}): download it once while online, "
            "or point the task at local rows with --include-path (docs/evaluation.md)"
        )


def _evaluate(model: Igva, catalog: Tasks, config: dict[str, Any], limit: int | None, folder: Path) -> dict[str, Any]:
    from lmms_eval.evaluator import simple_evaluate

    arguments = SimpleNamespace(output_path=str(folder), process_with_media=True, reasoning_tags=None)
    with _log(folder / "log.txt"):
        results: dict[str, Any] = simple_evaluate(
            model=model,
            tasks=[dict(config)],
            task_manager=catalog.manager,
            batch_size=model.batch_size,
            limit=limit,
            bootstrap_iters=0,
            cli_args=arguments,
            process_docs_parallel=1,  # scorers change their documents and modules: one after the other
        )
    return results


def _quiet_environment() -> None:
    """No telemetry, before the libraries read their variables; whether the hub is asked stays the user's choice."""
    for name in ("HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
        os.environ.setdefault(name, "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def _catalog(include_path: Path | None) -> Tasks:
    try:
        import lmms_eval.evaluator  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"lmms-eval cannot be imported ({error}): pip install 'igva[lmms]', in an environment of its own "
            "(docs/evaluation.md)"
        ) from error
    from igva.eval.lmms_tasks import Tasks

    return Tasks(include_path)


@contextlib.contextmanager
def _log(file: Path) -> Iterator[None]:
    """What lmms-eval and its tasks print and log goes into a file."""
    from loguru import logger  # type: ignore[import-not-found,unused-ignore]

    with file.open("a") as sink, contextlib.redirect_stdout(sink):
        logger.remove()
        number = logger.add(sink, level="INFO")
        try:
            yield
        finally:
            logger.remove(number)


def _identity(model: str) -> dict[str, Any]:
    """What tells one model from another: its name, and of a folder the size and time of each file."""
    from igva.answering import resolve_model

    folder = Path(resolve_model(model))
    files = sorted(folder.glob("*.json")) + sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    return {"name": model, "files": [[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in files]}


def _metrics(results: dict[str, Any]) -> dict[str, float]:
    """``{"exact_match,none": 0.5, "alias": …}`` → ``{"exact_match": 0.5}``, without the errors of the mean."""
    named = {key.split(",")[0]: value for key, value in results.items() if "," in key}
    numbers = {k: v for k, v in named.items() if isinstance(v, (int, float)) and "_stderr" not in k}
    return {key: float(value) for key, value in numbers.items()}


def _unusable(benchmark: Benchmark, metrics: dict[str, float], samples: list[dict[str, Any]]) -> str | None:
    """Why the score is none, if it is none."""
    grades = [value for sample in samples for value in sample.values() if isinstance(value, dict)]
    if failed := sum("eval_model" in grade and not grade["eval_model"] for grade in grades):
        return f"the LLM that grades failed on {failed} of {len(samples)} answers; the answers are kept"
    if not metrics:
        return "it has no metric"
    name = benchmark.metric or next(iter(metrics))
    if name not in metrics:
        return f"it has no metric {name}; it has {', '.join(metrics)}"
    return f"its {name} is not a number" if math.isnan(metrics[name]) else None


def _read(file: Path) -> dict[str, Any] | None:
    return json.loads(file.read_text()) if file.is_file() else None


def _write_samples(file: Path, samples: list[dict[str, Any]]) -> None:
    write_file(file, "".join(json.dumps(sample, default=str, ensure_ascii=False) + "\n" for sample in samples))


def _trace(error: Exception) -> str:
    import traceback

    return "".join(traceback.format_exception(error))
