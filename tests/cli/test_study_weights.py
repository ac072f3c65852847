"""``igva study weights``: a report, and one line for a mistake."""

import json

import pytest

from igva.cli.main import entry

pytest.importorskip("matplotlib")


def test_weights(model_folders, question_file, tmp_path, capsys):
    out = tmp_path / "out"
    words = [
        "study",
        "weights",
        "--model",
        model_folders["one"],
        "--data",
        question_file,
        "--out",
        str(out),
        "--limit",
        "4",
    ]
    assert entry([*words, "--category-field", "kind", "--counterfactuals", "--max-new-tokens", "2"]) == 0
    assert f"report: {out / 'report.html'}" in capsys.readouterr().out
    html = (out / "report.html").read_text()
    assert "kind 1" in html and "without layers 1-2" in html
    assert json.loads((out / "study.json").read_text())["settings"]["fusion"] == "igva"


def test_weights_of_conversations(model_folders, question_file, tmp_path, capsys):
    turns = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "red"}]
    records = [{"id": str(i), "image": f"{i}.png", "conversations": turns} for i in range(3)]
    file = tmp_path / "data.json"
    file.write_text(json.dumps(records))
    words = ["study", "weights", "--model", model_folders["one"], "--data", str(file), "--out", str(tmp_path / "out")]
    assert entry(words) == 0
    assert len((tmp_path / "out" / "weights.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"--model": "single"}, "no layer weights"),
        ({"--model": "nowhere"}, "nowhere"),
        ({"--data": "missing.json"}, "missing.json"),
        ({"--data": "empty.json"}, "empty.json"),
        ({"--category-field": "colour"}, "colour"),
        ({"--limit": "0"}, "--limit 0"),
        ({"--clusters": "0"}, "--clusters 0"),
        ({"--batch-size": "-1"}, "--batch-size -1"),
    ],
)
def test_weights_mistakes(model_folders, question_file, tmp_path, monkeypatch, one_line, more, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.json").write_text("[]")
    options = {"--model": "one", "--data": question_file, "--out": "out"} | more
    options["--model"] = model_folders.get(options["--model"], options["--model"])
    assert entry(["study", "weights", *(word for pair in options.items() for word in pair)]) == 2
    assert message in one_line()


def test_weights_refuses_another_studys_folder(model_folders, question_file, tmp_path, capsys):
    words = ["study", "weights", "--data", question_file, "--out", str(tmp_path / "out"), "--model"]
    assert entry([*words, model_folders["one"]]) == 0
    capsys.readouterr()
    assert entry([*words, model_folders["two"]]) == 2
    assert "name another output" in capsys.readouterr().err
