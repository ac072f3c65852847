"""``igva study attention``: maps, and one line for a mistake."""

import pytest

from igva.cli.main import entry

pytest.importorskip("matplotlib")


def test_attention(model_folders, question_file, tmp_path, capsys):
    out = tmp_path / "out"
    words = [
        "study",
        "attention",
        "--model",
        model_folders["one"],
        "--image",
        str(tmp_path / "0.png"),
        "--out",
        str(out),
    ]
    assert entry([*words, "--question", "What color is it?", "--point", "0.1", "0.9"]) == 0
    assert {"weights.png", "attention.png", "groups.png", "attention.safetensors"} <= {p.name for p in out.iterdir()}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--image", "missing.png"], "missing.png"),
        (["--image", "questions.json"], "questions.json"),
        (["--image", "0.png", "--question", " "], "empty"),
        (["--image", "0.png", "--point", "2", "0"], "outside"),
    ],
)
def test_attention_mistakes(model_folders, question_file, tmp_path, monkeypatch, one_line, more, message):
    monkeypatch.chdir(tmp_path)
    assert entry(["study", "attention", "--model", model_folders["one"], "--out", "out", *more]) == 2
    assert message in one_line()
    assert not (tmp_path / "out").exists()
