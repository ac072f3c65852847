"""A run that is killed and goes on, batches, and settings that must not change on the way."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from igva.data.questions import read_questions
from igva.errors import UserError
from igva.eval.run import evaluate, fingerprint, prompt_of, question_hash
from igva.testing import tiny_model, tiny_processor


@pytest.fixture
def question_file(tmp_path, picture):
    entries = []
    for i in range(6):
        picture(i).save(tmp_path / f"{i}.png")
        entries.append(
            {
                "id": str(i),
                "image": f"{i}.png",
                "question": "Is it?" if i % 2 else "What colour is the background?",
                "answer": "yes",
                "choices": ["yes", "no"],
                "task": "even" if i % 2 == 0 else "odd",
                "category": "General" if i < 5 else "Knowledge",
            }
        )
    file = tmp_path / "questions.json"
    file.write_text(json.dumps(entries))
    return file


@pytest.fixture
def questions(question_file):
    return read_questions(question_file)


def lines(out):
    return [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]


def predictions(out):
    return {line["id"]: line["prediction"] for line in lines(out)}


def without_settings(scores):
    return {key: value for key, value in scores.items() if key != "settings"}


def test_batches_and_runs_change_nothing(model, processor, questions, tmp_path):
    processor.tokenizer.padding_side = "right"  # as a saved tokenizer may come back
    one = evaluate(model, processor, questions, tmp_path / "one", batch_size=1, max_new_tokens=4)
    all_ = evaluate(model, processor, questions, tmp_path / "all", batch_size=8, max_new_tokens=4)
    again = evaluate(model, processor, questions, tmp_path / "again", batch_size=8, max_new_tokens=4)
    assert lines(tmp_path / "one") == lines(tmp_path / "all") == lines(tmp_path / "again")
    assert without_settings(one) == without_settings(all_) and all_ == again
    assert len(set(predictions(tmp_path / "all").values())) > 1  # it says something, and not always the same


def test_what_is_written(model, processor, questions, tmp_path):
    scores = evaluate(model, processor, questions, tmp_path / "out", max_new_tokens=4)
    assert json.loads((tmp_path / "out" / "scores.json").read_text()) == scores
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())
    assert settings == scores["settings"]
    assert settings["dtype"] == "float32" and settings["max_new_tokens"] == 4 and not settings["zero_images"]
    assert set(settings["versions"]) == {"python", "igva", "torch", "transformers"}
    assert scores["prompt"] == prompt_of(processor, questions[0]) and questions[0].question in scores["prompt"]
    assert [line["id"] for line in lines(tmp_path / "out")] == [q.id for q in questions]
    first = lines(tmp_path / "out")[0]
    assert set(first) == {"id", "task", "category", "question", "references", "prediction", "score"}
    assert (first["question"], first["references"]) == (questions[0].question, list(questions[0].references))
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "predictions.jsonl",
        "scores.json",
        "settings.json",
    ]


def test_a_run_goes_on_behind_half_a_line(model, processor, questions, tmp_path):
    """After one batch and a half, the rest of the second is asked again: batches stay what they were."""
    whole = evaluate(model, processor, questions, tmp_path / "whole", batch_size=2, max_new_tokens=4)
    text = (tmp_path / "whole" / "predictions.jsonl").read_text()
    killed = tmp_path / "killed"
    evaluate(model, processor, questions, killed, batch_size=2, max_new_tokens=4)
    (killed / "scores.json").unlink()
    (killed / "predictions.jsonl").write_text("".join(text.splitlines(keepends=True)[:3]) + '{"id": "3", "pred')
    asked = []
    generate = model.generate
    model.generate = lambda **inputs: asked.append(len(inputs["input_ids"])) or generate(**inputs)
    try:
        assert evaluate(model, processor, questions, killed, batch_size=2, max_new_tokens=4) == whole
        assert asked == [2, 2]
        evaluate(model, processor, questions, killed, batch_size=2, max_new_tokens=4)
        assert asked == [2, 2]  # nothing is asked twice
    finally:
        del model.generate
    assert (killed / "predictions.jsonl").read_text() == text


CHILD = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from igva.data.questions import read_questions
from igva.eval.run import evaluate
from igva.testing import tiny_model, tiny_processor
model = tiny_model()
evaluate(model, tiny_processor(model), read_questions(Path(sys.argv[1])), Path(sys.argv[2]), batch_size=1,
         max_new_tokens=int(sys.argv[3]))
"""


def test_killed_in_the_middle(model, processor, question_file, tmp_path):
    """SIGKILL after the first answers; what it left is taken up to the same predictions and scores."""
    out = tmp_path / "killed"
    arguments = [sys.executable, "-c", CHILD, str(question_file), str(out), "24"]
    child = subprocess.Popen(arguments, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 240
    file = out / "predictions.jsonl"
    while time.monotonic() < deadline and child.poll() is None:
        if file.exists() and file.stat().st_size:
            child.send_signal(signal.SIGKILL)
        time.sleep(0.001)
    child.wait()
    assert file.stat().st_size, "it never answered"
    questions = read_questions(question_file)
    scores = evaluate(model, processor, questions, out, batch_size=1, max_new_tokens=24)
    assert scores == evaluate(model, processor, questions, tmp_path / "whole", batch_size=1, max_new_tokens=24)
    assert file.read_bytes() == (tmp_path / "whole" / "predictions.jsonl").read_bytes()


def test_other_settings_are_refused(model, processor, questions, tmp_path):
    out = tmp_path / "out"
    evaluate(model, processor, questions, out, max_new_tokens=2)
    darker = tiny_processor(model)
    darker.image_processor.image_mean = [0.9, 0.9, 0.9]
    changed = [dataclasses.replace(questions[0], question="Why?"), *questions[1:]]
    before = (out / "predictions.jsonl").read_text()
    for named, call in {
        "max_new_tokens 2, now it is 3": lambda: evaluate(model, processor, questions, out, max_new_tokens=3),
        "zero_images": lambda: evaluate(model, processor, questions, out, max_new_tokens=2, zero_images=True),
        "questions": lambda: evaluate(model, processor, changed, out, max_new_tokens=2),
        "processor": lambda: evaluate(model, darker, questions, out, max_new_tokens=2),
        "fingerprint": lambda: evaluate(tiny_model(seed=1), processor, questions, out, max_new_tokens=2),
    }.items():
        with pytest.raises(UserError, match=f"was made with {named}.*name another output") as caught:
            call()
        assert "\n" not in str(caught.value)
    assert (out / "predictions.jsonl").read_text() == before
    for damaged in ("{", "[1]", "{}"):
        (out / "settings.json").write_text(damaged)
        with pytest.raises(UserError, match="unknown settings"):
            evaluate(model, processor, questions, out, max_new_tokens=2)
    (out / "settings.json").unlink()
    with pytest.raises(UserError, match="unknown settings"):
        evaluate(model, processor, questions, out, max_new_tokens=2)


def test_a_model_and_questions_are_told_by_what_they_are(model, questions, tmp_path):
    assert fingerprint(model) == fingerprint(tiny_model()) != fingerprint(tiny_model(seed=1))
    same_weights = tiny_model()
    same_weights.config.vision_pool = 2
    assert fingerprint(same_weights) != fingerprint(model)  # they answer otherwise
    moved = [dataclasses.replace(q, image=tmp_path / "moved" / q.image.name) for q in questions]
    (tmp_path / "moved").mkdir()
    for old, new in zip(questions, moved, strict=True):
        new.image.write_bytes(old.image.read_bytes())
    assert question_hash(moved) == question_hash(questions)
    moved[0].image.write_bytes(moved[1].image.read_bytes())
    assert question_hash(moved) != question_hash(questions)
    moved[0].image.unlink()
    with pytest.raises(UserError, match=r"0\.png"):
        question_hash(moved)


def test_blind_answers_depend_on_the_question_alone(model, processor, questions, tmp_path):
    evaluate(model, processor, questions, tmp_path / "out", max_new_tokens=4, zero_images=True)
    told = predictions(tmp_path / "out")
    assert len({told[q.id] for q in questions if q.task == "even"}) == 1
    assert len({told[q.id] for q in questions if q.task == "odd"}) == 1
