"""The suite cannot be guessed, and a suite that can is found out."""

import json
from pathlib import Path

import pytest

from igva.errors import UserError
from igva.probe import Question, build
from igva.probe.check import check, read_test, read_train
from igva.probe.edition import EVAL_CYCLE


def test_a_leak_is_found() -> None:
    # the first question names its answer's opposite, the second always has the same answer, the third is fair
    train, test = [], []
    for rows, first in ((train, 0), (test, 1)):
        for n in range(first, 600 + first):
            word, other = ("cat", "dog") if n % 2 else ("dog", "cat")
            rows.append(Question("told", f"It is no {word}. What is it?", other, ("cat", "dog")))
            rows.append(Question("always", "What is it?", "cat", ("cat", "dog")))
            rows.append(Question("fair", "What is it?", ("cat", "dog")[n * 7919 % 1000 // 500], ("cat", "dog")))
    told = {verdict.task: verdict for verdict in check(train, test)}
    assert told["told"].leaks and told["told"].blind > 90
    assert told["always"].leaks and told["always"].majority == 100
    assert not told["fair"].leaks and told["fair"].chance == 50


@pytest.mark.slow
@pytest.mark.parametrize("split", ["test", "unseen"])
def test_the_suite_does_not_leak(tmp_path: Path, split: str) -> None:
    build("train", tmp_path / "train", 4000, seed=11, workers=2)
    build(split, tmp_path / split, 3600, seed=11, workers=2)
    verdicts = check(read_train(tmp_path / "train/data.json"), read_test(tmp_path / split / "questions.json"))
    assert {verdict.task for verdict in verdicts} == set(EVAL_CYCLE)
    assert not [verdict for verdict in verdicts if verdict.leaks]


@pytest.mark.parametrize(
    ("content", "told"),
    [("[", "not valid JSON"), ('{"a": 1}', "a list of questions"), ("[]", "has no questions with choices")],
)
def test_bad_files(tmp_path: Path, content: str, told: str) -> None:
    file = tmp_path / "x.json"
    file.write_text(content)
    for read in (read_train, read_test):
        with pytest.raises(UserError, match=told):
            read(file)
    with pytest.raises(UserError, match="cannot be read"):
        read_test(tmp_path / "gone.json")


def test_training_questions_are_bare(tmp_path: Path) -> None:
    record = {
        "conversations": [
            {"from": "human", "value": "<image>\nWhat is it?\nAnswer the question using a single word or phrase."},
            {"from": "gpt", "value": "cat"},
        ],
        "task": "name",
        "choices": [["cat", "dog"]],
    }
    (tmp_path / "data.json").write_text(json.dumps([record]))
    assert read_train(tmp_path / "data.json") == [Question("name", "What is it?", "cat", ("cat", "dog"))]
