"""The shipped checkpoint answers a stored set word for word as it did.

After a change that is meant to alter answers (other weights, another prompt), write the expected answers anew with
``IGVA_UPDATE_SNAPSHOTS=1 python -m pytest tests/eval/test_regression.py`` and look at the difference before committing;
``tests/eval/regression/draw.py`` draws the pictures.
"""

import json
import os
from pathlib import Path

import pytest

import igva
from igva.data.questions import read_questions
from igva.eval.run import evaluate
from igva.parts.cache import parts_present

STORED = Path(__file__).parent / "regression"
EXPECTED = STORED / "expected.json"


needs_parts = pytest.mark.skipif(not parts_present(), reason="the parts are not fetched: igva models fetch tiny")


@pytest.fixture(scope="module")
def shipped():
    return igva.load("tiny", device="cpu", dtype="float32")


@needs_parts
def test_the_shipped_checkpoint_answers_as_it_did(shipped, tmp_path):
    model, processor = shipped
    scores = evaluate(model, processor, read_questions(STORED / "questions.json"), tmp_path, batch_size=8)
    lines = (tmp_path / "predictions.jsonl").read_text().splitlines()
    found = {
        "mean": scores["mean"],
        "categories": {name: entry["accuracy"] for name, entry in scores["categories"].items()},
        "answers": {line["id"]: line["prediction"] for line in map(json.loads, lines)},
    }
    if os.environ.get("IGVA_UPDATE_SNAPSHOTS"):
        EXPECTED.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    assert found == json.loads(EXPECTED.read_text())


@needs_parts
def test_the_shipped_checkpoint_answers_alike_in_any_batch(shipped, tmp_path):
    """One at a time, the answers of batches of eight; of each category one question."""
    questions = read_questions(STORED / "questions.json")[::4]
    evaluate(*shipped, questions, tmp_path, batch_size=1)
    lines = map(json.loads, (tmp_path / "predictions.jsonl").read_text().splitlines())
    stored = json.loads(EXPECTED.read_text())["answers"]
    assert {line["id"]: line["prediction"] for line in lines} == {q.id: stored[q.id] for q in questions}


def test_what_is_stored_is_small():
    files = list(STORED.glob("*.png"))
    assert len(files) == 24 and sum(file.stat().st_size for file in files) < 300_000
