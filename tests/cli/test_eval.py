"""``igva eval``."""

import json
from collections import Counter

import pytest

from igva.cli import eval as verb
from igva.cli import main as cli
from igva.eval import photo_suite, probe_suite
from igva.probe import SPLITS


@pytest.fixture(autouse=True)
def only_this_verb(monkeypatch):
    monkeypatch.setattr(cli, "VERBS", ("eval",))


def test_splits_are_those_with_questions():
    assert set(verb.SPLITS["probe"]) == set(SPLITS) - {"train"}
    assert verb.SPLITS["photos"] == photo_suite.SPLITS


def test_scores_a_file(model_folders, question_file, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["eval", "--model", model_folders["one"], "--suite", question_file, "--out", str(out)]
    arguments += ["--max-new-tokens", "3", "--device", "cpu", "--plot", str(tmp_path / "s.png")]
    assert cli.entry(arguments) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("prompt: ") and "What shape is it?" in printed
    assert "metric: exact (the whole answer" in printed
    rows = [line.split() for line in printed.splitlines()]
    assert [row[0] for row in rows if row[0:1] in (["General"], ["shape"], ["color"])] == ["color", "General", "shape"]
    assert ["General", "0", "0", "56.15", "3", "0"] in rows  # Wilson, 0 of 3; an open question has no chance
    assert json.loads((out / "scores.json").read_text())["questions"] == 6
    assert (tmp_path / "s.png").stat().st_size > 5000
    assert cli.entry(arguments) == 0  # a second time: nothing asked, the same printed
    assert capsys.readouterr().out == printed


def test_limit_and_category_field(model_folders, question_file, tmp_path):
    out = tmp_path / "out"
    arguments = ["eval", "--model", model_folders["single"], "--data", question_file, "--out", str(out)]
    arguments += ["--max-new-tokens", "2", "--limit", "2", "--category-field", "kind", "--zero-images"]
    assert cli.entry(arguments) == 0
    scores = json.loads((out / "scores.json").read_text())
    assert {name: entry["questions"] for name, entry in scores["tasks"].items()} == {"color": 1, "shape": 1}
    assert all(name.startswith("kind ") for name in scores["categories"])
    assert scores["settings"]["zero_images"] is True


def test_answer_suffix(model_folders, question_file, tmp_path, capsys):
    suffix = "Answer the question using a single word or phrase."
    arguments = ["eval", "--model", model_folders["single"], "--data", question_file, "--max-new-tokens", "1"]
    assert cli.entry([*arguments, "--out", str(tmp_path / "a"), "--answer-suffix", suffix]) == 0
    assert f"What shape is it?\\n{suffix}" in capsys.readouterr().out.splitlines()[0]
    assert cli.entry([*arguments, "--out", str(tmp_path / "b"), "--no-answer-suffix"]) == 0
    assert suffix not in capsys.readouterr().out


def test_probe_is_drawn_once(model_folders, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("IGVA_HOME", str(tmp_path / "home"))
    drawn = []
    build = probe_suite.probe.build
    small = lambda split, out, count, **options: drawn.append(split) or build(split, out, 6)  # noqa: E731
    monkeypatch.setattr(probe_suite.probe, "build", small)
    for number in range(2):
        arguments = ["eval", "--model", model_folders["single"], "--suite", "probe", "--split", "unseen"]
        arguments += ["--out", str(tmp_path / f"out{number}"), "--max-new-tokens", "2", "--limit", "3"]
        assert cli.entry(arguments) == 0
    assert drawn == ["unseen"]
    (folder,) = (tmp_path / "home" / "probe").iterdir()
    assert folder.name.startswith("unseen-6400-")
    assert json.loads((tmp_path / "out0" / "scores.json").read_text())["questions"] == 3


def test_photos_and_their_answers_one_by_one(model_folders, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("IGVA_HOME", str(tmp_path / "home"))
    arguments = ["eval", "--model", model_folders["single"], "--suite", "photos", "--split", "whole", "--list"]
    arguments += ["--out", str(tmp_path / "out"), "--max-new-tokens", "2", "--limit", "4", "--device", "cpu"]
    assert cli.entry([*arguments, "--plot", str(tmp_path / "s.png")]) == 0
    lines = [line.split() for line in capsys.readouterr().out.split("\n")]
    assert [line[0] for line in lines if line[0:1] == ["whole"]] == ["whole"]
    listed = [line for line in lines if len(line) > 1 and line[1].endswith(".webp")]
    assert Counter(line[0] for line in listed) == {"scikit-image": 2, "packages": 2}
    assert {line[-1] for line in listed} <= {"right", "wrong"}
    assert (tmp_path / "s.png").stat().st_size > 5000


def test_two_evaluations_may_draw_the_probe_at_once(tmp_path, monkeypatch):
    """The one that ends later finds the other's pictures, and uses them."""
    monkeypatch.setenv("IGVA_HOME", str(tmp_path))
    build = probe_suite.probe.build
    others = []

    def build_slowly(split, out, count, **options):
        if not others:  # meanwhile another process begins and ends
            others.append(None)
            others[0] = probe_suite.probe_questions(split, count).stat().st_ino
        return build(split, out, count, **options)

    monkeypatch.setattr(probe_suite.probe, "build", build_slowly)
    file = probe_suite.probe_questions("unseen", 3)
    assert file.stat().st_ino == others[0]
    assert list((tmp_path / "probe").iterdir()) == [file.parent]


def bad_calls(folder, questions):
    """Arguments, and what the line must say."""
    (folder / "empty.json").write_text("[]")
    entry = {"id": 1, "image": "0.png", "question": "?", "answer": "cat"}
    (folder / "metric.json").write_text(json.dumps([{**entry, "metric": "bleu"}]))
    (folder / "choices.json").write_text(json.dumps([{**entry, "choices": ["dog", "cow"]}]))
    (folder / "picture.json").write_text(json.dumps([{**entry, "image": "nowhere.png"}]))
    return [
        ([str(folder / "nowhere.json")], "does not exist"),
        ([str(folder / "empty.json")], "holds no question"),
        ([str(folder / "metric.json")], "names the metric 'bleu': use one of"),
        ([str(folder / "choices.json")], "answer 'cat' is not among its choices"),
        ([str(folder / "picture.json")], "nowhere.png"),
        ([questions, "--model", str(folder / "no-model")], "no model"),
        ([questions, "--limit", "0"], "--limit 0: use at least 1"),
        ([questions, "--batch-size", "0"], "--batch-size 0"),
        ([questions, "--split", "test"], "--split is for --suite probe and --suite photos"),
        (["probe", "--split", "train"], "--suite probe has no split 'train': use one of test, unseen, val"),
        (["photos", "--split", "test"], "--suite photos has no split 'test': use one of whole, cutouts, hands, open"),
        ([questions, "--include-path", "x"], "--include-path is for"),
        ([questions, "--category-field", "sort"], "no field 'sort'"),
        ([questions, "--device", "abacus"], "no device 'abacus'"),
        ([questions, "--out", questions], "cannot be written"),
        ([questions, "--answer-suffix", "Be brief."], "unknown answer suffix 'Be brief.': use one of Answer the"),
        (["lmms:mme", "--zero-images"], "--zero-images does not go with lmms:"),
        (["lmms:mme", "--list"], "--list does not go with lmms:"),
        (["lmms:mme", "--no-answer-suffix"], "--no-answer-suffix does not go with lmms:"),
    ]


def test_bad_input_is_one_line_and_exit_code_2(model_folders, question_file, tmp_path, one_line):
    for (suite, *more), message in bad_calls(tmp_path, question_file):
        arguments = [
            "eval",
            "--suite",
            suite,
            "--out",
            str(tmp_path / "out"),
            "--model",
            model_folders["single"],
            *more,
        ]
        assert cli.entry(arguments) == 2, message
        assert message in one_line()


def test_another_setting_is_refused(model_folders, question_file, tmp_path, capsys):
    arguments = ["eval", "--suite", question_file, "--out", str(tmp_path / "out"), "--limit", "1"]
    arguments += ["--model", model_folders["single"], "--max-new-tokens"]
    assert cli.entry([*arguments, "2"]) == 0
    capsys.readouterr()
    assert cli.entry([*arguments, "3"]) == 2
    error = capsys.readouterr().err.strip()
    assert "max_new_tokens 2, now it is 3: name another output" in error and error.count("\n") == 0


def test_an_unreadable_picture_ends_the_bar_and_is_named(model_folders, tmp_path, capsys):
    (tmp_path / "0.txt").write_text("no picture")
    file = tmp_path / "q.jsonl"
    file.write_text(json.dumps({"id": 1, "image": "0.txt", "question": "?", "answer": "cat"}))
    assert cli.entry(["eval", "--suite", str(file), "--out", str(tmp_path / "o"), "--model", model_folders["one"]]) == 2
    last = capsys.readouterr().err.strip().split("\n")[-1]
    assert last.startswith("igva: ") and "0.txt is not an image" in last


def test_wrong_arguments():
    for arguments in (["eval"], ["eval", "--suite", "probe"]):
        with pytest.raises(SystemExit) as stopped:
            cli.entry(arguments)
        assert stopped.value.code == 2
