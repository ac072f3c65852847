"""Pictures on the server's disk: inside the allowed folder and nowhere else (S3)."""

from __future__ import annotations

import os

import pytest

from igva.serve.failure import Refusal
from igva.serve.limits import Limits
from igva.serve.local_files import LocalFiles

from .conftest import noise


@pytest.fixture
def disk(tmp_path):
    """An allowed folder with a picture, and a secret beside it."""
    (tmp_path / "open" / "below").mkdir(parents=True)
    (tmp_path / "open" / "below" / "a b.png").write_bytes(noise())
    (tmp_path / "open-not").mkdir()
    for secret in ("secret.png", "open-not/secret.png"):
        (tmp_path / secret).write_bytes(noise())
    (tmp_path / "open" / "link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "open" / "inside.png").symlink_to("below/a b.png")
    (tmp_path / "open" / "door").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "open" / "pipe")
    return tmp_path


def test_inside(disk):
    files = LocalFiles([disk / "open"])
    assert files.read(f"file://{disk}/open/below/a%20b.png") == noise()
    assert files.read(f"file://localhost{disk}/open/below/a%20b.png") == noise()
    assert LocalFiles([disk / "open" / "door" / "open"]).read(f"file://{disk}/open/below/a b.png") == noise()


@pytest.mark.parametrize(
    "path",
    [
        "{disk}/secret.png",
        "{disk}/open-not/secret.png",
        "{disk}/open/../secret.png",
        "{disk}/open/%2e%2e/secret.png",
        "{disk}/open/below/../../secret.png",
        "{disk}/open/./below/a b.png",
        "{disk}/open//below/a b.png",
        "{disk}/open/link.png",
        "{disk}/open/inside.png",
        "{disk}/open/door/secret.png",
        "{disk}/open/door/open/below/a b.png",
        "{disk}/open/below",
        "{disk}/open/pipe",
        "{disk}/open/missing.png",
        "{disk}/open/below/a b.png%00.txt",
        "{disk}/open",
        "/etc/passwd",
        "etc/passwd",
        "/proc/self/environ",
    ],
)
def test_everything_else_is_refused_alike(path, disk):
    with pytest.raises(Refusal) as refused:
        LocalFiles([disk / "open"]).read(f"file://{path.format(disk=disk)}")
    assert refused.value.message == "this file may not be read here: send the picture as a data URL"


def test_another_machine_and_no_folder(disk):
    for files, url in (
        (LocalFiles([disk / "open"]), f"file://elsewhere{disk}/open/below/a%20b.png"),
        (LocalFiles(), f"file://{disk}/open/below/a%20b.png"),
    ):
        with pytest.raises(Refusal):
            files.read(url)


def test_a_file_that_is_too_large(disk):
    with pytest.raises(Refusal) as refused:
        LocalFiles([disk / "open"], Limits(image_bytes=100)).read(f"file://{disk}/open/below/a%20b.png")
    assert refused.value.status == 413
