"""Questions with pictures, from either kind of file."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from igva.data.questions import Question as Item
from igva.data.questions import pick
from igva.data.questions import read_turns as read_items
from igva.errors import UserError
from igva.study.readout import of_tested_tasks

QUESTION = {"id": "q1", "image": "a.png", "question": "Is it red?", "answer": "yes", "choices": ["yes", "no"]}


def write(path, data):
    path.write_text(json.dumps(data))
    return path


def talk(*pairs):
    turns = []
    for number, (question, answer) in enumerate(pairs):
        turns.append({"from": "human", "value": ("<image>\n" if not number else "") + question})
        turns.append({"from": "gpt", "value": answer})
    return turns


def test_a_file_of_questions(tmp_path):
    file = write(tmp_path / "q.json", [{**QUESTION, "task": "color", "category": "Fine-Grained"}, QUESTION | {"id": 2}])
    first, second = read_items(file)
    assert first == Item("q1", tmp_path / "a.png", "Is it red?", "yes", ("yes", "no"), "color", "Fine-Grained")
    assert (second.id, second.task, second.category) == ("2", "all", "all")


def test_llava_data_gives_every_turn(tmp_path):
    suffix = "\nAnswer the question using a single word or phrase."
    entry = {
        "id": "s",
        "image": "a.png",
        "conversations": talk(("What is it?" + suffix, "a cat"), ("Which color?", "red ")),
        "task": "pets",
        "kind": "animals",
        "choices": [["a cat", "a dog"], ["red", "blue"]],
    }
    first, second = read_items(write(tmp_path / "d.json", [entry]), "kind")
    assert (first.question, first.answer, first.choices) == ("What is it?", "a cat", ("a cat", "a dog"))
    assert (second.id, second.question, second.answer, second.category) == ("s/1", "Which color?", "red", "animals")
    assert first.image == tmp_path / "a.png"


def test_samples_of_no_or_several_pictures_are_left_out(tmp_path):
    one = {"id": 1, "image": "a.png", "conversations": talk(("What?", "x"))}
    two = {"id": 2, "image": ["a.png", "b.png"], "conversations": talk(("<image>\nWhat?", "x"))}
    none = {"id": 3, "conversations": [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Hi"}]}
    assert [item.id for item in read_items(write(tmp_path / "d.json", [one, two, none]))] == ["1/0"]
    with pytest.raises(UserError, match="no question about a single picture"):
        read_items(write(tmp_path / "e.json", [none]))


@pytest.mark.parametrize(
    ("data", "field", "told"),
    [
        ([{"question": "What?", "image": "a.png"}], "category", "entry 0 .* lacks 'answer'"),
        ([QUESTION], "kind", "has no field 'kind'"),
        (
            [{"id": 1, "image": "a.png", "conversations": talk(("What?", "x")), "choices": [["x"], ["y"]]}],
            "category",
            "2 lists",
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path, data, field, told):
    with pytest.raises(UserError, match=told):
        read_items(write(tmp_path / "d.json", data), field)


def test_no_json_and_no_file(tmp_path):
    (tmp_path / "d.json").write_text('[{"question": }')
    with pytest.raises(UserError, match="line 1: not valid JSON"):
        read_items(tmp_path / "d.json")
    with pytest.raises(UserError, match="does not exist"):
        read_items(tmp_path / "gone.json")


def test_a_pick_is_even_over_tasks_and_keeps_the_order(tmp_path):
    items = [Item(str(n), "a", "?", "x", (), task, task) for n, task in enumerate("aaaaaaaabbc")]
    chosen = pick(items, 6)
    assert Counter(item.task for item in chosen) == {"a": 3, "b": 2, "c": 1}
    assert [int(item.id) for item in chosen] == sorted(int(item.id) for item in chosen)
    assert pick(items, 6) == chosen and pick(items, None) == items and pick(items, 99) == items


def test_tasks_that_are_never_tested_are_left_out():
    train = [Item(str(n), "a.png", "?", "yes", (), task, "c") for n, task in enumerate(("color", "describe", "color"))]
    test = [Item("9", "b.png", "?", "yes", (), "color", "c")]
    assert [item.id for item in of_tested_tasks(train, test)] == ["0", "2"]
    assert of_tested_tasks(train[1:2], test) == train[1:2]  # nothing in common: tasks are another word for files there
