"""Files of questions in their forms, and what is said about malformed ones."""

import json

import pytest

from igva.data.questions import Question, pick_questions, read_questions, with_format
from igva.errors import UserError

WHOLE = {
    "id": 7,
    "image": "a/b.png",
    "question": "Which?",
    "answer": "cat",
    "answers": ["cat", "kitten"],
    "choices": ["cat", "dog"],
    "task": "name",
    "category": "General",
    "metric": "multiple_choice",
    "group": "g",
}
SHORT = {"id": "x", "image": "x.png", "question": "What?", "answer": "tea"}
TALK = {
    "id": "t",
    "image": "t.png",
    "conversations": [
        {"from": "human", "value": "<image>\nWhat is it?\nAnswer the question using a single word or phrase."},
        {"from": "gpt", "value": "a cup"},
        {"from": "human", "value": "And this?"},
        {"from": "gpt", "value": "tea"},
    ],
    "choices": [["a cup", "a can"], ["tea", "milk"]],
    "task": "name",
    "category": "General",
    "kind": "indoors",
}


def write(folder, entries, name="q.json"):
    file = folder / name
    file.write_text("\n".join(map(json.dumps, entries)) if name.endswith("l") else json.dumps(entries))
    return file


@pytest.mark.parametrize("name", ["q.json", "q.jsonl"])
def test_reads(tmp_path, name):
    whole, short = read_questions(write(tmp_path, [WHOLE, SHORT], name))
    assert whole == Question(
        id="7",
        image=tmp_path / "a" / "b.png",
        question="Which?",
        answer="cat",
        choices=("cat", "dog"),
        task="name",
        category="General",
        answers=("cat", "kitten"),
        metric="multiple_choice",
        group="g",
    )
    assert short == Question("x", tmp_path / "x.png", "What?", "tea", answers=("tea",))
    assert whole.references == ("cat", "kitten")
    with pytest.raises(AttributeError):
        short.answer = "no"


def test_of_several_answers_the_commonest_is_the_answer(tmp_path):
    entry = {key: value for key, value in SHORT.items() if key != "answer"} | {"answers": ["a", "b", "b"]}
    (question,) = read_questions(write(tmp_path, [entry]))
    assert question.answer == "b" and question.answers == ("a", "b", "b")


def test_llava_gives_its_first_question_word_for_word(tmp_path):
    (question,) = read_questions(write(tmp_path, [TALK, {**TALK, "id": "two", "image": None}]), "kind")
    assert question.question == "What is it?\nAnswer the question using a single word or phrase."
    assert question.answer == "a cup" and question.choices == ("a cup", "a can")
    assert question.task == "name" and question.category == "indoors" and question.image == tmp_path / "t.png"


def test_category_falls_back_to_the_task(tmp_path):
    (question,) = read_questions(write(tmp_path, [{**SHORT, "task": "drinks"}]))
    assert question.category == "drinks"
    with pytest.raises(UserError, match=r"entry 0 \(id x\) has no field 'kind'"):
        read_questions(write(tmp_path, [SHORT]), "kind")


def test_pick_is_even_over_tasks():
    questions = [Question(str(i), None, "?", "a", task="rare" if i % 5 == 0 else "common") for i in range(20)]
    picked = pick_questions(questions, 6)
    assert [q.task for q in picked].count("rare") == 3
    assert [int(q.id) for q in picked] == sorted(int(q.id) for q in picked)
    assert pick_questions(questions, None) == questions


def test_pick_keeps_variants_together():
    """Groups of three: of seven at most, two groups; MME's pairs are those of a picture; one item is always taken."""
    grouped = [Question(str(i), None, "?", "a", group=str(i // 3)) for i in range(12)]
    picked = pick_questions(grouped, 7)
    assert len(picked) == 6 and len({q.group for q in picked}) == 2
    assert len(pick_questions(grouped, 2)) == 3
    pairs = [Question(str(i), i // 2, "?", "yes", metric="mme") for i in range(8)]
    assert sorted(q.image for q in pick_questions(pairs, 5)) in ([a, a, b, b] for a in range(4) for b in range(a, 4))


def test_answer_formats():
    asked = Question("1", None, "What is it?\nAnswer the question using a single word or phrase.", "cup")
    assert [q.question for q in with_format([asked], "")] == ["What is it?"]
    assert [q.question for q in with_format([asked], "Please answer yes or no.")] == [
        "What is it?\nPlease answer yes or no."
    ]
    with pytest.raises(UserError, match=r"unknown answer suffix 'Briefly\.': use one of Answer the question using"):
        with_format([asked], "Briefly.")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "does not exist"),
        ("[{", "line 1: not valid JSON"),
        ('"q"', "a list of questions is expected, not a str"),
        ("[]", "holds no question"),
        ("[3]", "entry 0: an object is expected"),
        ('[{"id": 1}]', r"entry 0 \(id 1\) lacks 'image'"),
        (json.dumps([{**SHORT, "image": 3}]), "its image is not text"),
        (json.dumps([{**SHORT, "choices": "cat"}]), "its choices are not a list"),
        (json.dumps([{**SHORT, "answer": ["tea"]}]), "its answer is not text"),
        (json.dumps([SHORT, SHORT]), "entry 1: the id 'x' is taken"),
        (json.dumps([{**TALK, "conversations": [{"from": "human", "value": "?"}]}]), "must alternate"),
        (json.dumps(SHORT) + "\n{", "line 2: not valid JSON"),
    ],
)
def test_malformed(tmp_path, text, message):
    file = tmp_path / "q.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_questions(file)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)
