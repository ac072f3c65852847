"""``igva recipe``: list, show, copy."""

import subprocess
import sys
import time

import pytest

from igva.cli.main import entry
from igva.train.arguments import load_recipe, recipe_names, recipe_text


def test_list_has_a_line_for_each(capsys):
    assert entry(["recipe", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == recipe_names()
    (align,) = [line for line in lines if line.startswith("tiny_align ")]
    assert align.endswith("stage 1 of the embedded default, the projector alone.")
    assert all(len(line) < 140 for line in lines)


def test_show_prints_the_file(capsys):
    assert entry(["recipe", "show", "llava15_7b_instruct"]) == 0
    assert capsys.readouterr().out == recipe_text("llava15_7b_instruct")


@pytest.mark.parametrize("file", [None, "mine.yaml"])
def test_copy_is_a_recipe_of_your_own(file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert entry(["recipe", "copy", "tiny_align", *([file] if file else [])]) == 0
    written = tmp_path / (file or "tiny_align.yaml")
    assert capsys.readouterr().out == f"{written.name}\n"
    assert written.read_text(encoding="utf-8") == recipe_text("tiny_align")
    assert load_recipe(str(written)) == load_recipe("tiny_align")


def test_copy_never_overwrites(tmp_path, capsys):
    file = tmp_path / "mine.yaml"
    file.write_text("mine")
    assert entry(["recipe", "copy", "tiny_align", str(file)]) == 2
    assert capsys.readouterr().err == f"igva: {file} exists already: name another file\n"
    assert file.read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["show", "llava_7b_instruct"], "did you mean llava15_7b_instruct?"),
        (["copy", "tiny_aling"], "did you mean tiny_align?"),
        (["show", "xyzzy"], "choose from llava15_13b_align, "),
        (["copy", "tiny_align", "nowhere/mine.yaml"], "name a file in a folder that exists"),
        (["copy", "tiny_align", "."], "."),
    ],
)
def test_bad_input_is_one_line(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert entry(["recipe", *words]) == 2
    err = capsys.readouterr().err
    assert message in err and err.startswith("igva: ") and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


QUICK = """
import sys
from igva.cli.main import entry
code = entry()
heavy = [name for name in ("torch", "transformers", "numpy") if name in sys.modules]
sys.exit(code or bool(heavy))
"""


@pytest.mark.parametrize("words", [["list"], ["show", "llava15_7b_align"], ["copy", "llava15_7b_align"]])
def test_it_loads_nothing_heavy(words, tmp_path):
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", QUICK, "recipe", *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - start < 5  # 0.1 s; the margin is for a busy machine


def test_python_dash_m_is_the_same_command():
    done = subprocess.run([sys.executable, "-m", "igva", "recipe", "list"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.split()[0] == recipe_names()[0]
