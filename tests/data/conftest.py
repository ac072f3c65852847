"""The same conversations in every format."""

from __future__ import annotations

import io
import json
import tarfile
import traceback

import pytest

from igva.errors import UserError

SOURCE = "mixed"


def png(image):
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


@pytest.fixture
def content(picture):
    """Entries as LLaVA's JSON has them, and the bytes of each picture they name."""
    pictures = {f"{i}.png": png(picture(i)) for i in range(5)}

    def turns(*texts):
        return [{"from": "gpt" if i % 2 else "human", "value": text} for i, text in enumerate(texts)]

    entries = [
        {"id": "one", "image": ["0.png"], "conversations": turns("<image>\nWhat is it?", "A cat.")},
        {
            "id": "several",
            "image": ["1.png", "2.png"],
            "conversations": turns("<image>\n<image>\nWhich is red?", "The first."),
            "source": "pairs",
        },
        {
            "id": "turns",
            "image": ["3.png", "4.png"],
            "conversations": turns("Look: <image> Nice?", "Yes.", "And this?\n<image>", "No."),
        },
        {"id": "text", "conversations": turns("Was heißt 猫? 🐈", "„Katze“.\u2028Zeile")},
    ]
    return entries, pictures


@pytest.fixture
def llava(tmp_path, content):
    entries, pictures = content
    folder = tmp_path / "llava"
    folder.mkdir()
    for name, data in pictures.items():
        (folder / name).write_bytes(data)
    (folder / f"{SOURCE}.json").write_text(json.dumps(entries), encoding="utf-8")
    lines = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)
    (folder / f"{SOURCE}.jsonl").write_text(lines, encoding="utf-8")
    return folder


@pytest.fixture
def refusal():
    """``refusal(call)`` → the message of the ``UserError`` it ends with; for calls that use loading processes."""

    def message(call):
        try:
            call()
        except UserError as error:
            # Else the loader lives until the garbage collector finds it, and then waits five seconds per process.
            traceback.clear_frames(error.__traceback__)
            return str(error)
        return pytest.fail("no UserError")

    return message


@pytest.fixture
def write_tar():
    """``write_tar(path, samples)``, with ``samples``: key → suffix → bytes."""
    return _write_tar


def _write_tar(path, samples):
    with tarfile.open(path, "w") as tar:
        for key, members in samples.items():
            for suffix, data in members.items():
                info = tarfile.TarInfo(f"{key}.{suffix}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return path


def _as_shard(entries, pictures):
    """Entries as the samples of a shard; the pictures are numbered."""
    samples = {}
    for entry in entries:
        rest = {name: value for name, value in entry.items() if name != "image"}
        samples[entry["id"]] = {"json": json.dumps(rest).encode()} | {
            f"{number}.png": pictures[name] for number, name in enumerate(entry.get("image", []))
        }
    return samples


@pytest.fixture
def shards(tmp_path, content):
    """Two shards: ``mixed-00.tar``, ``mixed-01.tar``."""
    entries, pictures = content
    folder = tmp_path / "shards"
    folder.mkdir()
    for number, part in enumerate((entries[:2], entries[2:])):
        _write_tar(folder / f"{SOURCE}-0{number}.tar", _as_shard(part, pictures))
    return folder
