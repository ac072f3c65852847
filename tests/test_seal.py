"""What igva wrote itself: a change is noticed, what was left behind goes."""

from __future__ import annotations

import os
import time

import pytest

from igva.checkpoints import tiny
from igva.files import remove_stale
from igva.seal import SEAL, contents_fit, seal, sizes_fit


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "model.safetensors").write_bytes(bytes(1000))
    (tmp_path / "sub" / "vocab.txt").write_text("a b c")
    seal(tmp_path)
    return tmp_path


def test_as_it_was(folder):
    assert sizes_fit(folder) and contents_fit(folder)
    (folder / "more.txt").write_text("somebody's own file")
    assert contents_fit(folder)


def test_a_flipped_bit_is_noticed(folder):
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[500] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    assert sizes_fit(folder) and not contents_fit(folder)


@pytest.mark.parametrize("change", ["cut", "gone", "no seal", "bad seal", "list"])
def test_a_file_that_is_not_as_long_is_noticed_at_once(folder, change):
    if change == "cut":
        os.truncate(folder / "model.safetensors", 999)
    elif change == "gone":
        (folder / "sub" / "vocab.txt").unlink()
    elif change == "no seal":
        (folder / SEAL).unlink()
    else:
        (folder / SEAL).write_text({"bad seal": "{", "list": '{"a": []}'}[change])
    assert not sizes_fit(folder) and not contents_fit(folder)


def test_fetch_makes_a_damaged_model_again(folder, monkeypatch, capsys):
    monkeypatch.setattr(tiny, "PARTS", {})
    monkeypatch.setattr(tiny, "tiny_path", lambda: folder)
    tiny.verify_tiny()
    assert folder.exists()
    (folder / "model.safetensors").write_bytes(bytes(999) + b"1")
    tiny.verify_tiny()
    assert not folder.exists() and "is damaged" in capsys.readouterr().err


def test_what_was_left_behind_goes_after_a_day(tmp_path):
    for name in (".tiny-1-abc", ".tiny-2-old-abc", "tiny-1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("x")
    old = time.time() - 2 * 24 * 3600
    os.utime(tmp_path / ".tiny-1-abc", (old, old))
    os.utime(tmp_path / "tiny-1", (old, old))
    remove_stale(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".tiny-2-old-abc", "tiny-1"]
