"""What docs/data.md shows is what happens."""

import re
from pathlib import Path

import pytest

from igva.cli import main as cli
from igva.data.sources import read_records

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")


def block(language):
    return re.search(rf"```{language}\n(.*?)```", PAGE, re.S).group(1)


@pytest.fixture
def folder(tmp_path, picture, monkeypatch):
    monkeypatch.chdir(tmp_path)
    picture(0, 64, 48).save(tmp_path / "cat.png")
    return tmp_path


def test_the_json_and_what_verify_prints(folder, capsys):
    (folder / "animals.json").write_text(block("json"), encoding="utf-8")
    assert [len(record.images) for record in read_records("animals.json")] == [1, 2, 0]
    code = cli.entry(["data", "verify", "animals.json"])
    out, err = capsys.readouterr()
    assert code == 2
    assert f"$ igva data verify animals.json\n{out}{err}" == block("console")


def test_the_table(folder):
    exec(block("python"), {})
    (record,) = read_records("sofa")
    assert record.source == "sofa" and len(record.images) == 1
