"""``igva compare``: a verdict, answers that are kept, and one line for a mistake."""

import pytest

from igva.cli.main import entry

pytest.importorskip("matplotlib")


def test_compare(model_folders, question_file, tmp_path, capsys):
    out = tmp_path / "out"
    words = [
        "compare",
        model_folders["one"],
        model_folders["two"],
        question_file,
        "--out",
        str(out),
        "--max-new-tokens",
        "2",
    ]
    assert entry(words) == 0
    told = capsys.readouterr().out
    assert "No difference found" in told and "Fine-Grained" in told
    before = (out / "before" / "predictions.jsonl").read_text()
    assert len(before.splitlines()) == 6 and (out / "only_after.jsonl").read_text() == ""
    assert entry(words) == 0  # goes on from the answers that are there
    assert (out / "before" / "predictions.jsonl").read_text() == before
    capsys.readouterr()
    assert entry(["compare", model_folders["two"], *words[2:]]) == 2
    assert "name another output" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("after", "file", "message"), [("nowhere", None, "nowhere"), ("two", "missing.json", "missing.json")]
)
def test_compare_mistakes(model_folders, question_file, tmp_path, one_line, after, file, message):
    words = [
        "compare",
        model_folders["one"],
        model_folders.get(after, after),
        file or question_file,
        "--out",
        str(tmp_path / "out"),
    ]
    assert entry(words) == 2
    assert message in one_line()
    assert not (tmp_path / "out").exists()
