"""Public benchmarks through lmms-eval, offline: official prompts and scorers on hand-made rows.

lmms-eval has an environment of its own (``make test-lmms``); without it these tests are skipped.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
from pathlib import Path

import pytest

pytest.importorskip("lmms_eval")

from igva.answering import load
from igva.errors import UserError
from igva.eval.lmms_run import run_lmms
from igva.eval.lmms_suite import read_suite
from igva.model.processing_igva import instruction_text

HERE = Path(__file__).parent
PROMPTS = HERE / "lmms_prompts" / "paper.json"


def _rows():
    spec = importlib.util.spec_from_file_location("rows", HERE / "lmms_rows" / "rows.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return _rows().write(tmp_path_factory.mktemp("rows"))


@pytest.fixture(scope="module")
def model(model_folder):
    return str(model_folder)


@pytest.fixture(scope="module")
def paper(rows, model, tmp_path_factory):
    """The whole suite, asked once: folder and summary."""
    out = tmp_path_factory.mktemp("out")
    return out, run_lmms(model, "paper", out, batch_size=4, device="cpu", include_path=rows, max_new_tokens=8)


def samples(out, task):
    return [json.loads(line) for line in (out / task / "samples.jsonl").read_text().splitlines()]


def test_every_benchmark_ran_or_says_why_not(paper):
    out, summary = paper
    tasks = summary["tasks"]
    assert {benchmark.task for benchmark in read_suite("paper")} <= set(tasks)
    missing = {task: result["missing"] for task, result in tasks.items() if result["missing"]}
    assert set(missing) == {"mmvet"} and "graded by an LLM" in missing["mmvet"]
    assert tasks["mmvet"]["metrics"] == {} and not [k for k in tasks["mmvet"] if k == "value"]
    assert set(summary["categories"]) == {
        "General", "Knowledge", "Chart & OCR", "Vision-Centric", "Fine-Grained", "Hallucination",
    }  # fmt: skip
    assert json.loads((out / "lmms.json").read_text())["tasks"].keys() == tasks.keys()


def test_pope_is_what_its_answers_say(paper):
    out, summary = paper
    pairs = [(s["filtered_resps"][0].strip().lower(), s["doc"]["answer"]) for s in samples(out, "pope")]
    right = sum(said == true for said, true in pairs) / len(pairs)
    metrics = summary["tasks"]["pope"]["metrics"]
    assert metrics["pope_accuracy"] == pytest.approx(right)


def test_a_second_run_asks_nothing_and_a_killed_one_goes_on(paper, rows, model, tmp_path):
    out, summary = paper
    before = {file: file.stat().st_mtime_ns for file in out.glob("*/answers.jsonl")}
    again = run_lmms(model, "paper", out, batch_size=4, device="cpu", include_path=rows, max_new_tokens=8)
    assert {file: file.stat().st_mtime_ns for file in before if "mmvet" not in str(file)} == {
        file: time for file, time in before.items() if "mmvet" not in str(file)
    }
    assert again["tasks"]["pope"]["metrics"] == summary["tasks"]["pope"]["metrics"]
    whole = (out / "pope/answers.jsonl").read_text().splitlines()
    (tmp_path / "pope").mkdir()
    (tmp_path / "pope/answers.jsonl").write_text("\n".join(whole[:3]) + '\n{"half a li')
    resumed = run_lmms(model, "pope", tmp_path, batch_size=4, device="cpu", include_path=rows, max_new_tokens=8)
    assert resumed["tasks"]["pope"]["metrics"] == summary["tasks"]["pope"]["metrics"]


def test_batches_do_not_change_answers(paper, rows, model, tmp_path):
    out, _ = paper
    run_lmms(model, "mme,chartqa", tmp_path, batch_size=1, device="cpu", include_path=rows, max_new_tokens=8)
    for task in ("mme", "chartqa"):
        assert [s["resps"] for s in samples(out, task)] == [s["resps"] for s in samples(tmp_path, task)]


def test_prompts_are_those_of_the_snapshot(paper, model):
    """What each benchmark asks, as the language model and the fusion read it; IGVA_UPDATE_SNAPSHOTS=1 renews it."""
    out, _ = paper
    _, processor = load(model, "cpu")
    told = {}
    for folder in sorted(path.parent for path in out.glob("*/samples.jsonl")):
        question = samples(out, folder.name)[0]["arguments"][0]
        chat = [{"role": "user", "content": [{"type": "image", "image": None}, {"type": "text", "text": question}]}]
        told[folder.name] = {
            "question": question,
            "chat": processor.apply_chat_template([chat], tokenize=False, add_generation_prompt=True)[0],
            "instruction": instruction_text(question),
        }
    if os.environ.get("IGVA_UPDATE_SNAPSHOTS"):
        PROMPTS.parent.mkdir(exist_ok=True)
        PROMPTS.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n")
    assert told == json.loads(PROMPTS.read_text())
    assert all(re.sub(r"\s+", "", entry["instruction"]) for entry in told.values())


@pytest.mark.parametrize(
    ("tasks", "told"),
    [("popee", "pope"), ("gone.yaml", "gone.yaml"), ("", "no task is named")],
    ids=["typo", "no file", "nothing"],
)
def test_bad_suites(model, tmp_path, tasks, told):
    with pytest.raises(UserError, match=told):
        run_lmms(model, tasks, tmp_path)


def test_rows_out_of_reach_are_missing_and_named(model, tmp_path):
    summary = run_lmms(model, "pope", tmp_path, device="cpu", limit=1)
    assert "--include-path" in summary["tasks"]["pope"]["missing"]
