"""Scoring, and a run that is killed and goes on."""

import json

import pytest

from igva.errors import UserError
from igva.eval.run import Question, evaluate, is_right, read_questions, score
from igva.testing import tiny_model, tiny_processor


@pytest.mark.parametrize(
    ("prediction", "answer", "right"),
    [
        ("Cat", "cat", True),
        ("a cat.", "cat", True),
        ("The light  bulb", "light bulb", True),
        ("3.", "3", True),
        ("cat and dog", "cat", False),
        ("category", "cat", False),
        ("", "cat", False),
    ],
)
def test_exact_match(prediction, answer, right):
    assert is_right(prediction, answer) is right


@pytest.fixture
def questions(tmp_path, picture):
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
            }
        )
    file = tmp_path / "questions.json"
    file.write_text(json.dumps(entries))
    return read_questions(file)


def test_score(questions):
    told = score(questions, {q.id: "Yes." if q.task == "odd" or q.id == "0" else "no" for q in questions})
    assert told["tasks"]["odd"] == {"accuracy": 100.0, "chance": 50.0, "questions": 3}
    assert told["tasks"]["even"]["accuracy"] == 33.3
    assert told["mean"] == 66.7


def predictions(out):
    return {line["id"]: line["prediction"] for line in map(json.loads, (out / "predictions.jsonl").open())}


def test_batches_and_resume_change_nothing(questions, tmp_path):
    model = tiny_model()
    processor = tiny_processor(model)
    processor.tokenizer.padding_side = "right"  # as a saved tokenizer may come back
    evaluate(model, processor, questions, tmp_path / "one", batch_size=1, max_new_tokens=4)
    scores = evaluate(model, processor, questions, tmp_path / "all", batch_size=4, max_new_tokens=4)
    assert predictions(tmp_path / "one") == predictions(tmp_path / "all")
    killed = tmp_path / "killed"
    killed.mkdir()
    lines = (tmp_path / "all" / "predictions.jsonl").read_text().splitlines(keepends=True)
    (killed / "predictions.jsonl").write_text("".join(lines[:3]))
    assert evaluate(model, processor, questions, killed, batch_size=4, max_new_tokens=4) == scores
    assert predictions(killed) == predictions(tmp_path / "all")


def test_blind_answers_depend_on_the_question_alone(questions, tmp_path):
    model = tiny_model()
    processor = tiny_processor(model)
    evaluate(model, processor, questions, tmp_path / "out", max_new_tokens=4, zero_images=True)
    told = predictions(tmp_path / "out")
    assert len({told[q.id] for q in questions if q.task == "even"}) == 1
    assert len({told[q.id] for q in questions if q.task == "odd"}) == 1


@pytest.mark.parametrize(
    ("text", "message"), [("[{", "line 1: not valid JSON"), ('[{"id": 1}]', "lacks 'image'"), (None, "does not exist")]
)
def test_bad_questions(tmp_path, text, message):
    file = tmp_path / "q.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UserError, match=message):
        read_questions(file)


def test_question_is_frozen(questions):
    assert isinstance(questions[0], Question)
    with pytest.raises(AttributeError):
        questions[0].answer = "no"
