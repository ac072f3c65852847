"""Two runs compared: what is found where there is a difference, and what is said where there is none."""

import csv
import json
import random

import pytest

from igva.data.questions import Question
from igva.errors import UserError
from igva.eval.statistics import mcnemar
from igva.study.compare import compare_runs, read_run, study_compare, verdict
from igva.study.paired import Run, compare_questions, compare_scores

NAMES = {"before": "old", "after": "new"}


def questions(count, categories=("General",), tmp="x.png", group=None):
    return [
        Question(
            id=f"q{i}",
            image=tmp,
            question="What?",
            answer="a",
            category=categories[i % len(categories)],
            task=categories[i % len(categories)].lower(),
            group=group(i) if group else "",
        )
        for i in range(count)
    ]


def run_of(scores):
    return Run({name: "a" if score else "b" for name, score in scores.items()}, scores)


def drawn(asked, share, seed):
    rng = random.Random(seed)
    return {q.id: float(rng.random() < (share[q.category] if isinstance(share, dict) else share)) for q in asked}


def test_scores_of_zero_and_one():
    first, second = [1, 1, 0, 0, 0, 0, 0, 0, 0, 0], [1, 0, 1, 1, 1, 1, 1, 1, 1, 0]
    pair = compare_scores([float(v) for v in first], [float(v) for v in second])
    assert (pair.count, pair.first, pair.second) == (10, 20.0, 80.0)
    assert (pair.only_first, pair.only_second) == (1, 7)
    assert pair.p == pytest.approx(mcnemar(1, 7)) == pytest.approx(0.0703125)
    assert pair.difference == pytest.approx(60) and pair.low < 60 < pair.high


def test_graded_scores_take_another_test():
    rng = random.Random(0)
    first = [rng.random() for _ in range(50)]
    second = [min(1.0, value + 0.1 * rng.random()) for value in first]
    pair = compare_scores(first, second)
    assert pair.p < 1e-6 and pair.only_first == 0
    assert compare_scores(first, first).p == 1.0


def test_linked_questions_are_one_unit():
    asked = questions(8, group=lambda i: f"g{i // 4}")
    first, second = dict.fromkeys((q.id for q in asked), 0.0), dict.fromkeys((q.id for q in asked), 1.0)
    pair = compare_questions(asked, first, second)
    assert pair.count == pair.only_second == 2


def test_a_difference_is_found_where_it_is():
    asked = questions(900, ("General", "Chart & OCR", "Knowledge"))
    base = drawn(asked, 0.5, 0)
    rng = random.Random(1)
    better = {q.id: 1.0 if q.category == "Chart & OCR" and rng.random() < 0.4 else base[q.id] for q in asked}
    found = compare_runs(asked, run_of(base), run_of(better))
    assert found.overall.p < 0.001 and found.corrected["Chart & OCR"] < 0.001
    assert found.corrected["General"] == found.corrected["Knowledge"] == 1.0
    lines = verdict(found, NAMES)
    assert lines[0].startswith("new is better than old by")
    assert "Chart & OCR +" in lines[1] and "General" not in lines[1]
    assert verdict(compare_runs(asked, run_of(better), run_of(base)), NAMES)[0].startswith("old is better than new by")


def test_chance_is_called_chance():
    """Of 40 pairs of equally good models about 2 may differ; the verdict agrees with the test each time."""
    asked = questions(200, ("General", "Chart & OCR", "Knowledge"))
    false_alarms = 0
    for seed in range(40):
        found = compare_runs(asked, run_of(drawn(asked, 0.6, seed)), run_of(drawn(asked, 0.6, seed + 1000)))
        said = verdict(found, NAMES)
        assert said[0].startswith("No difference found") == (found.overall.p >= 0.05)
        assert any("No category shows a difference" in line for line in said) == (min(found.corrected.values()) >= 0.05)
        false_alarms += found.overall.p < 0.05
    assert false_alarms <= 5


def test_holm_over_the_categories():
    asked = questions(20, ("a", "b"))
    base = dict.fromkeys((q.id for q in asked), 0.0)
    after = {q.id: float(q.category == "a" and int(q.id[1:]) < 12) for q in asked}  # 6 of 10
    found = compare_runs(asked, run_of(base), run_of(after))
    assert found.categories["a"].p == pytest.approx(0.03125)
    assert found.corrected["a"] == pytest.approx(0.0625)
    assert any("looking at 2 of them" in line for line in verdict(found, NAMES))


def writer(scores):
    def answer(folder):
        folder.mkdir(parents=True)
        rows = [{"id": k, "prediction": "a" if v else "b", "score": v} for k, v in scores.items()]
        (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    return answer


def test_study(tmp_path):
    pytest.importorskip("matplotlib")
    asked = questions(40, ("General", "Knowledge"))
    before, after = ({q.id: float(i % n == 0) for i, q in enumerate(asked)} for n in (4, 3))
    answers = {"before": writer(before), "after": writer(after)}
    report, found = study_compare(asked, tmp_path, answers, NAMES, {"data": "d"})
    assert report.is_file() and (tmp_path / "difference.png").is_file()
    only = {side: [json.loads(line) for line in (tmp_path / f"only_{side}.jsonl").open()] for side in NAMES}
    assert {row["id"] for row in only["after"]} == {q.id for q in asked if after[q.id] > before[q.id]}
    assert len(only["before"]) == found.overall.only_first > 0
    assert only["after"][0]["before"] == "b" and only["after"][0]["after"] == "a"
    rows = list(csv.DictReader((tmp_path / "comparison.csv").open()))
    assert [row["category"] for row in rows] == ["General", "Knowledge", "all"]
    assert rows[-1]["before, %"] == "25.0" and rows[-1]["after, %"] == "35.0"


def test_a_run_that_lacks_an_answer(tmp_path):
    writer({"q0": 1.0})(tmp_path / "run")
    with pytest.raises(UserError, match="q1"):
        read_run(tmp_path / "run", questions(2))


def test_two_models_right_on_nothing():
    asked = questions(5)
    nothing = run_of(dict.fromkeys((q.id for q in asked), 0.0))
    lines = verdict(compare_runs(asked, nothing, nothing), NAMES)
    assert lines[0].startswith("No difference found") and "single question right" in lines[-1]
