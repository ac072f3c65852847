"""``igva probe``."""

import json
from pathlib import Path

import pytest

from igva.cli import main as cli
from igva.cli import probe
from igva.probe import SPLITS


@pytest.fixture(autouse=True)
def only_this_verb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "VERBS", ("probe",))


def test_split_names_match() -> None:
    assert tuple(SPLITS) == probe.SPLITS


def test_builds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "test"
    assert cli.entry(["probe", "build", "--split", "test", "--count", "4", "--seed", "1", "--out", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    assert len(json.loads((out / "questions.json").read_text())) == 4


def test_bad_input_is_one_line_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    for split, count in (("test", "2"), ("train", "0"), ("nothing", "2")):
        assert cli.entry(["probe", "build", "--split", split, "--count", count, "--out", str(tmp_path)]) == 2
        error = capsys.readouterr().err
        assert error.startswith("igva: ") and error.count("\n") == 1
    for arguments in (["probe"], ["probe", "build"], ["probe", "build", "--count", "x"]):
        with pytest.raises(SystemExit) as stopped:
            cli.entry(arguments)
        assert stopped.value.code == 2
