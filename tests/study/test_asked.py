"""Questions for a model, out of both kinds of files."""

import json

import pytest

from igva.errors import UserError
from igva.study.asked import read_asked


def write(folder, name, entries):
    file = folder / name
    file.write_text(json.dumps(entries))
    return file


@pytest.fixture
def asked(tmp_path, picture):
    picture().save(tmp_path / "a.png")
    return [
        {"id": f"{i}", "image": "a.png", "question": f"What {i}?", "answer": "x", "task": "odd" if i % 2 else "even"}
        for i in range(6)
    ]


def turns(*texts):
    return [{"from": "gpt" if i % 2 else "human", "value": text} for i, text in enumerate(texts)]


@pytest.fixture
def llava(tmp_path, picture):
    picture().save(tmp_path / "a.png")
    suffix = "Answer the question using a single word or phrase."
    return [
        {
            "id": "one",
            "image": "a.png",
            "conversations": turns(f"<image>\nWhat is it?\n{suffix}", "cat", "And where?", "there"),
            "task": "name",
            "kind": "k1",
            "choices": [["cat", "dog"], []],
        },
        {"id": "text", "conversations": turns("Hi?", "Hello."), "kind": "k2"},
    ]


def test_file_of_questions(tmp_path, asked):
    questions = read_asked(write(tmp_path, "q.json", asked))
    assert [q.id for q in questions] == ["0", "1", "2", "3", "4", "5"]
    assert questions[0].category == "even" and questions[0].image == tmp_path / "a.png"


def test_lines_of_questions(tmp_path, asked):
    file = tmp_path / "q.jsonl"
    file.write_text("\n".join(map(json.dumps, asked)))
    assert len(read_asked(file)) == 6


def test_limit_takes_of_every_task(tmp_path, asked):
    questions = read_asked(write(tmp_path, "q.json", asked), limit=2)
    assert {q.task for q in questions} == {"odd", "even"}


def test_conversations(tmp_path, llava):
    """The first question of each, with its request for a form: the model was trained on it."""
    (question,) = read_asked(write(tmp_path, "data.json", llava))
    assert question.question == "What is it?\nAnswer the question using a single word or phrase."
    assert (question.id, question.answer, question.choices) == ("one", "cat", ("cat", "dog"))
    assert (question.task, question.category) == ("name", "name")


def test_category_field(tmp_path, asked, llava):
    (question,) = read_asked(write(tmp_path, "data.json", llava), "kind")
    assert question.category == "k1"
    named = read_asked(write(tmp_path, "q.json", [entry | {"kind": "k"} for entry in asked]), "kind")
    assert {q.category for q in named} == {"k"}


def test_unknown_category_field(tmp_path, asked, llava):
    for name, entries in (("q.json", asked), ("data.json", llava)):
        with pytest.raises(UserError, match="colour"):
            read_asked(write(tmp_path, name, entries), "colour")


def test_bad_files(tmp_path, asked, llava):
    with pytest.raises(UserError, match="missing"):
        read_asked(tmp_path / "missing.json")
    with pytest.raises(UserError, match="empty"):
        read_asked(write(tmp_path, "empty.json", []))
    with pytest.raises(UserError, match="single picture"):
        read_asked(write(tmp_path, "text.json", llava[1:]))
    with pytest.raises(UserError, match="same id"):
        read_asked(write(tmp_path, "twice.json", asked + asked[:1]))
    with pytest.raises(UserError, match="--limit 0"):
        read_asked(write(tmp_path, "q.json", asked), limit=0)
    (tmp_path / "broken.json").write_text('[{"id":')
    with pytest.raises(UserError, match="broken"):
        read_asked(tmp_path / "broken.json")
