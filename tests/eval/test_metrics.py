"""Every metric against worked examples."""

from pathlib import Path

import pytest

from igva.data.questions import Question
from igva.errors import UserError
from igva.eval import normalise, parsing
from igva.eval.metrics import METRICS, Graded, check_questions, score_one


def ask(metric, answer, *, answers=(), choices=(), group="", id="q", image="p.png"):
    return Question(id, Path(image), "?", answer, tuple(choices), answers=tuple(answers), metric=metric, group=group)


ANIMALS = ("cat", "dog", "polar bear", "bear")

# metric, answer, further fields, prediction, score
EXAMPLES = [
    ("exact", "cat", {}, "Cat", 1),
    ("exact", "cat", {}, "a cat.", 1),
    ("exact", "light bulb", {}, "The light  bulb", 1),
    ("exact", "3", {}, "3.", 1),
    ("exact", "cat", {}, "cat and dog", 0),
    ("exact", "cat", {}, "category", 0),
    ("exact", "cat", {}, " ", None),
    ("exact", "cat", {"answers": ("cat", "kitten")}, "kitten", 1),
    ("exact", "3.5", {}, "35", 0),
    ("exact", "1000", {}, "1,000", 1),
    ("exact", "A", {}, "the", 0),
    ("exact", "👍", {}, "!", 0),
    ("contains", "cat", {}, "There is a cat on the mat.", 1),
    ("contains", "cat", {}, "a category", 0),
    # Ten people: four say "2", six say "two dogs"; left out in turn, min(4/3, 1) or min(3/3, 1)
    ("vqa_accuracy", "2", {"answers": ["2"] * 4 + ["two dogs"] * 6}, "Two", 1),
    # Two of ten agree: 8 · 2/3 + 2 · 1/3 over ten
    ("vqa_accuracy", "no", {"answers": ["yes"] * 2 + ["no"] * 8}, "yes", 0.6),
    ("vqa_accuracy", "no", {"answers": ["yes"] * 1 + ["no"] * 9}, "yes", 0.3),
    # Three of ten: 7 · 1 + 3 · 2/3 over ten
    ("vqa_accuracy", "no", {"answers": ["yes"] * 3 + ["no"] * 7}, "yes", 0.9),
    ("vqa_accuracy", "don't know", {}, "dont know", 1),
    ("gqa", "table", {}, "Table.", 1),
    ("gqa", "table", {}, "the table", 0),
    ("pope", "yes", {}, "Yes, there is a dog.", 1),
    ("pope", "no", {}, "There isn't any.", 1),
    ("pope", "no", {}, "Yes. There is no cat", 0),
    ("pope", "yes", {}, "a dog", None),
    ("pope", "yes", {}, "Yes, no doubt", 0),  # as in the official script
    ("mme", "no", {}, "No", 1),
    ("mme", "no", {}, "not that I see", 1),
    ("mme", "no", {}, "There is no dog", None),  # beyond the first four characters
    ("relaxed_accuracy", "100", {}, "104.9", 1),
    ("relaxed_accuracy", "100", {}, "105.1", 0),
    ("relaxed_accuracy", "20%", {}, "0.205", 1),
    ("relaxed_accuracy", "0", {}, "0.01", 0),
    ("relaxed_accuracy", "Brazil", {}, "brazil", 1),
    ("relaxed_accuracy", "12", {}, "about 12", 0),
    ("relaxed_accuracy", "2019", {}, "1990", 1),  # a year is a number
    # one edit of six characters, and four of six
    ("anls", "harbor", {}, "Harbar", 1 - 1 / 6),
    ("anls", "harbor", {}, "hare", 0),
    ("anls", "harbor", {"answers": ("harbor", "hare")}, "hare", 1),
    ("anls", "1,234", {}, "1.234", 0.8),
    ("anls", "ab", {}, "ac", 0),  # one edit of two: just half
    ("ocrbench", "Open\nDaily", {}, "It says: OPEN DAILY", 1),
    ("ocrbench", "open", {}, "reopened", 1),
    ("ocrbench", "open", {"answers": ("open", "shut")}, "closed", 0),
    ("multiple_choice", "dog", {"choices": ANIMALS}, "B", 1),
    ("multiple_choice", "B", {"choices": ANIMALS}, "(b)", 1),
    ("multiple_choice", "dog", {"choices": ANIMALS}, "B. dog", 1),
    ("multiple_choice", "dog", {"choices": ANIMALS}, "The answer is B.", 1),
    ("multiple_choice", "dog", {"choices": ANIMALS}, "A dog", 1),
    ("multiple_choice", "cat", {"choices": ANIMALS}, "A", 1),
    ("multiple_choice", "dog", {"choices": ANIMALS}, "It shows a dog in the snow", 1),
    ("multiple_choice", "bear", {"choices": ANIMALS}, "a polar bear, I think", 0),
    ("multiple_choice", "polar bear", {"choices": ANIMALS}, "a polar bear, I think", 1),
    ("multiple_choice", "dog", {"choices": ANIMALS}, "cat or dog", None),
    ("multiple_choice", "dog", {"choices": ANIMALS}, "a fish", None),
    ("multiple_choice", "dog", {"choices": ANIMALS}, "Definitely B", 1),
    ("multiple_choice", "dog", {"choices": ANIMALS}, "E", None),
    ("multiple_choice", "dog", {"choices": ANIMALS}, "The answer is a dog", 1),
    ("multiple_choice", "dog", {"choices": ANIMALS}, "**B**", 1),
    ("multiple_choice", "dog", {"choices": ANIMALS}, "B\nThe other animal is a cat, not a dog.", 1),
    ("multiple_choice", "cat", {"choices": ANIMALS}, "Option A is the best", 1),
    ("multiple_choice", "cat", {"choices": ANIMALS}, "It is A", 1),
    ("multiple_choice", "cat", {"choices": ANIMALS}, "A fish", None),
    ("multiple_choice", "dog", {"choices": ANIMALS}, "both A and B", None),
    ("multiple_choice", "3.5", {"choices": ("35", "3.5")}, "about 3.5", 1),
    ("circular", "dog", {"choices": ANIMALS}, "B", 1),
    # 10 × 10 boxes, moved by 2 (80 / 120 = 0.67) and by 4 (60 / 140 = 0.43)
    ("refcoco_accuracy", "[0, 0, 10, 10]", {}, "[2, 0, 12, 10]", 1),
    ("refcoco_accuracy", "[0, 0, 10, 10]", {}, "[4, 0, 14, 10]", 0),
    ("refcoco_accuracy", "[0.1, 0.1, 0.5, 0.5]", {}, "The box is (0.1,0.1,0.5,0.45).", 1),
    ("refcoco_accuracy", "[0, 0, 10, 10]", {}, "2 dogs: (0,0),(10,9)", 1),
    ("refcoco_accuracy", "[0, 0, 10, 10]", {}, "on the left", None),
    ("refcoco_accuracy", "[0, 0, 10, 10]", {}, "[5, 5, 5, 9]", None),
]


@pytest.mark.parametrize(("metric", "answer", "fields", "prediction", "score"), EXAMPLES)
def test_examples(metric, answer, fields, prediction, score):
    question = ask(metric, answer, **fields)
    found = METRICS[metric].score_one(question, prediction)
    assert found == (None if score is None else pytest.approx(score))
    assert score_one(question, prediction) == pytest.approx(score or 0)


def test_every_metric_has_an_example():
    assert {metric for metric, *_ in EXAMPLES} == set(METRICS)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The cat.", "cat"),
        ("Two dogs", "2 dogs"),
        ("none", "0"),
        ("dont", "don't"),
        ("couldnt've", "couldn't've"),
        ("y'alld've", "y'all'd've"),
        ("twas", "'twas"),
        ("its well", "its well"),  # words of their own
        ("1,000 people", "1000 people"),
        ("3.5", "3.5"),
        ("black/white", "black white"),
        ("stop!", "stop"),
        ("stop! now", "stop now"),
        ("semi-final", "semi final"),
        ("a\nb", "b"),
    ],
)
def test_vqa_normalisation(text, normal):
    assert normalise.vqa(text) == normal


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The Cat’s.", "cats"),
        ("semi-final", "semifinal"),
        ("2-4", "2-4"),
        ("-.5 °C", "-.5 c"),
        ("10:30.", "10:30"),
        ("1,2", "1,2"),
        ("1,234,567", "1234567"),
        ("a", "a"),
        ("हिन्दी।", "हिन्दी"),
        ("cafe\u0301", "café"),
        ("...", "..."),
    ],
)
def test_plain(text, normal):
    assert normalise.plain(text) == normal


def test_boxes_of_two_units_meet_in_pixels(tmp_path, picture):
    picture(0, 200, 100).save(tmp_path / "p.png")
    question = ask("refcoco_accuracy", "[20, 10, 100, 50]", image=tmp_path / "p.png")
    assert score_one(question, "[0.1, 0.1, 0.5, 0.5]") == 1
    assert score_one(question, "[0.1, 0.1, 0.5, 0.9]") == 1  # 40 of 80: just half
    assert score_one(question, "[0.1, 0.1, 0.5, 0.95]") == 0


def test_numbers():
    assert parsing.number("12%") == 0.12 and parsing.number("-3.5 ") == -3.5 and parsing.number("1,2") is None


def grade(questions, predictions):
    return [
        Graded(q, text, METRICS[q.metric].score_one(q, text)) for q, text in zip(questions, predictions, strict=True)
    ]


def test_pope_figures():
    """Two hits, one false alarm, one miss, and one that says neither."""
    questions = [ask("pope", answer) for answer in ("yes", "yes", "no", "yes", "no")]
    graded = grade(questions, ["yes", "Yes.", "yes", "no", "perhaps"])
    figures = METRICS["pope"].figures(graded)
    assert figures == {
        "precision": pytest.approx(2 / 3),
        "recall": pytest.approx(2 / 3),
        "f1": pytest.approx(2 / 3),
        "yes_ratio": pytest.approx(3 / 5),
    }
    assert METRICS["pope"].chance(graded) == 0.5
    assert METRICS["pope"].figures(grade(questions[:1], ["no"]))["f1"] == 0


def test_mme_pairs():
    """Picture 1 has both right, picture 2 one of two: 75 + 50."""
    questions = [ask("mme", answer, image=image) for image in "12" for answer in ("yes", "no")]
    figures = METRICS["mme"].figures(grade(questions, ["yes", "no", "yes", "yes"]))
    assert figures == {"accuracy_plus": 0.5, "mme_score": 125}


def test_circular_counts_groups():
    """Right only where every order is; the chance of three in a row is (1/3)³."""
    choices = ("cat", "dog", "cow")
    orders = [choices[i:] + choices[:i] for i in range(3)]
    questions = [ask("circular", "dog", choices=order, group=group) for group in "ab" for order in orders]
    graded = grade(questions, ["B", "A", "C", "B", "B", "B"])
    metric = METRICS["circular"]
    assert metric.units(graded) == [1, 0]
    assert metric.figures(graded) == {"accuracy_single": pytest.approx(4 / 6)}
    assert metric.chance(graded) == pytest.approx(1 / 27)


@pytest.mark.parametrize(
    ("question", "message"),
    [
        (ask("bleu", "cat"), "question q names the metric 'bleu': use one of exact,"),
        (ask("exact", "cow", choices=("cat", "dog")), "its answer 'cow' is not among its choices"),
        (ask("multiple_choice", "cat"), "has no choices"),
        (ask("multiple_choice", "cow", choices=("cat", "dog")), "can tell right"),
        (ask("refcoco_accuracy", "left"), "can tell right"),
        (ask("pope", "cat"), "can tell right"),
    ],
)
def test_questions_that_cannot_be_scored(question, message):
    with pytest.raises(UserError, match=message) as caught:
        check_questions([question])
    assert "\n" not in str(caught.value)


def test_questions_that_can():
    check_questions([ask("multiple_choice", "B", choices=("cat", "dog")), ask("exact", "Yes", choices=("yes", "no"))])
    with pytest.raises(UserError, match="no questions"):
        check_questions([])
