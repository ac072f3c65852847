"""From answers to the figures of scores.json."""

from pathlib import Path

import pytest

from igva.data.questions import Question
from igva.eval.report import draw_scores, figure_lines, score_table
from igva.eval.scoring import grade_all, summarise
from igva.tables import text_table


def ask(number, task, category, answer="yes", choices=("yes", "no"), metric="exact"):
    return Question(str(number), Path("p.png"), "?", answer, choices, task, category, metric=metric)


@pytest.fixture
def scores():
    questions = [
        *(ask(i, "there", "Hallucination", metric="pope", choices=()) for i in range(4)),
        *(ask(i, "color", "Fine-Grained", "red", ("red", "blue", "green", "pink")) for i in range(4, 8)),
        *(ask(i, "read", "Chart & OCR", "harbor", (), "anls") for i in range(8, 10)),
        *(ask(i, "table", "Chart & OCR", "100", (), "relaxed_accuracy") for i in range(10, 12)),
    ]
    said = ["yes", "yes", "no", "hm", "red", "Red.", "red", "", "harbor", "harbar", "103", "200"]
    return summarise(grade_all(questions, {str(i): text for i, text in enumerate(said)}))


def test_tasks(scores):
    there, color, read = (scores["tasks"][name] for name in ("there", "color", "read"))
    assert there["accuracy"] == 50 and there["chance"] == 50 and there["unparsed"] == 1
    assert there["interval"] == [15.0, 85.0]  # Wilson, 2 of 4
    assert there["figures"] == {"precision": 1, "recall": 0.5, "f1": 0.6667, "yes_ratio": 0.5}
    assert color["accuracy"] == 75 and color["chance"] == 25 and color["unparsed"] == 1
    assert read["accuracy"] == pytest.approx(100 * (1 + 5 / 6) / 2, abs=0.01) and read["chance"] is None
    assert read["interval"][0] < read["accuracy"] <= read["interval"][1] == 100  # Student's, kept within 0..100
    assert [entry["metric"] for entry in scores["tasks"].values()] == ["exact", "anls", "relaxed_accuracy", "pope"]


def test_means(scores):
    assert scores["mean"] == pytest.approx((75 + 91.67 + 50 + 50) / 4, abs=0.01)
    assert scores["categories"]["Chart & OCR"]["accuracy"] == pytest.approx((1 + 5 / 6 + 1) / 4 * 100, abs=0.01)
    assert scores["categories"]["Chart & OCR"]["metric"] == "anls, relaxed_accuracy"
    assert scores["mean_categories"] == pytest.approx((70.83 + 75 + 50) / 3, abs=0.01)
    assert scores["chance"] is None and scores["questions"] == 12 and scores["unparsed"] == 2
    for what, tail in (("mean", ""), ("mean_categories", "_categories")):
        low, high = scores[f"interval{tail}"]
        assert 0 <= low < scores[what] < high <= 100
    assert scores["chance_categories"] is None


def test_groups_count_once():
    """Four questions in two groups of which one is right as a whole: 1 of 2, in the task and in its category."""
    questions = [
        Question(str(i), Path("p.png"), "?", "dog", ("cat", "dog"), metric="circular", group=str(i // 2))
        for i in range(4)
    ]
    scores = summarise(grade_all(questions, {"0": "B", "1": "B", "2": "A", "3": "B"}))
    entry = scores["tasks"]["all"]
    assert entry["accuracy"] == 50 and entry["questions"] == 4 and entry["chance"] == 25
    assert entry["figures"] == {"accuracy_single": 0.75}
    assert scores["categories"]["all"]["accuracy"] == 50


def test_groups_of_two_tasks_are_two():
    """Both tasks call their group g; in the category they stay apart, and one of two is right."""
    questions = [
        Question(task, Path("p.png"), "?", "dog", ("cat", "dog"), task, "General", metric="circular", group="g")
        for task in ("x", "y")
    ]
    scores = summarise(grade_all(questions, {"x": "B", "y": "A"}))
    assert scores["categories"]["General"]["accuracy"] == 50 == scores["chance_categories"]


def test_table_and_figure(scores, tmp_path):
    table = score_table(scores)
    assert [row[:2] for row in table.rows] == [
        ["Chart & OCR", ""],
        ["", "read"],
        ["", "table"],
        ["Fine-Grained", ""],
        ["", "color"],
        ["Hallucination", ""],
        ["", "there"],
        ["mean of tasks", ""],
        ["mean of categories", ""],
    ]
    assert len({len(line.rstrip()) <= 120 for line in text_table(table).splitlines()}) == 1
    assert figure_lines(scores) == ["there: precision 1, recall 0.5, f1 0.6667, yes_ratio 0.5"]
    axis = draw_scores(scores).axes[0]
    widths = sorted(bar.get_width() for bar in axis.patches if bar.get_width())
    assert widths == sorted(entry["accuracy"] for entry in scores["tasks"].values())
    assert len(axis.get_yticklabels()) == 4
