"""``igva batch``: a file of questions → a file of answers."""

import json

import pytest

from igva.cli.main import entry


@pytest.fixture
def lines(tmp_path, picture):
    picture().save(tmp_path / "a.png")
    file = tmp_path / "in.jsonl"
    entries = [{"id": i, "image": "a.png" if i else "missing.png", "question": "What?"} for i in range(3)]
    file.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return file


def test_answers_and_counts(lines, model_folders, capsys):
    out = lines.with_name("out.jsonl")
    words = ["batch", str(lines), str(out), "--model", model_folders["one"], "--max-new-tokens", "3"]
    assert entry(words) == 1  # one picture is missing
    assert "answered 2, failed 1" in capsys.readouterr().err
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert "missing.png does not exist" in found[0]["error"] and found[1]["answer"] == found[2]["answer"]
    lines.with_name("missing.png").write_bytes(lines.with_name("a.png").read_bytes())
    assert entry([*words, "--retry-failed"]) == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["missing.jsonl", "out.jsonl"], "missing.jsonl does not exist"),
        (["{lines}", "no/folder/out.jsonl"], "the folder of no/folder/out.jsonl does not exist"),
        (["{lines}", "{lines}"], "is the input too"),
        (["{lines}", "out.jsonl", "--batch-size", "0"], "--batch-size 0"),
        (["{lines}", "out.jsonl", "--workers", "0", "--engine", "ray"], "--workers 0"),
        (["{lines}", "out.jsonl", "--model", "nothing"], "there is no model 'nothing'"),
        (["{lines}", "out.jsonl", "--model", "nothing", "--engine", "ray"], "there is no model 'nothing'"),
    ],
)
def test_bad_input(words, told, lines, one_line, monkeypatch):
    monkeypatch.chdir(lines.parent)
    assert entry(["batch", *(word.format(lines=lines) for word in words)]) == 2
    assert told in one_line()
