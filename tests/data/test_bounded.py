"""A file is not what it says: what never ends, never comes, or unpacks to gigabytes is one line, soon and in little."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import subprocess
import sys
import tarfile

import pytest
from datasets import Dataset

from igva.data import bounded, verify, webdataset
from igva.data import dataset as streams
from igva.data.bounded import BoundedFile, TooMuch
from igva.data.images import StoredImage, image_bytes, open_image
from igva.data.questions import read_questions, read_turns
from igva.data.records import Record
from igva.data.sources import is_stream, read_records, scan
from igva.data.webdataset import scan_shard
from igva.errors import UserError
from igva.model.pixels import MAX_BYTES, BadImage, opened
from igva.probe.check import read_test

GIGABYTE = 2**30
# Runs `igva data verify` on each path under a limit of memory; prints how each ended.
LOOK = """
import contextlib, io, json, resource, sys, time
from igva.cli.main import entry
import igva.data.verify, igva.data.verify_table, igva.data.sources, datasets, webdataset, matplotlib
resource.setrlimit(resource.RLIMIT_AS, (size := 2**30 + int(open("/proc/self/statm").read().split()[0]) * 4096, size))
for path in sys.argv[1:]:
    said, told, start = io.StringIO(), io.StringIO(), time.process_time()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(told):
        code = entry(["data", "verify", path])
    line = told.getvalue().strip().splitlines()[-1]  # behind what shows the progress
    print(json.dumps([path, code, time.process_time() - start, line, said.getvalue()]), flush=True)
"""


def conversation(**more):
    return {"conversations": [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "Yes."}], **more}


def header(name, size, kind=tarfile.REGTYPE):
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def hole(path, size, start=b""):
    """A file of so many bytes that takes no room on the disk."""
    path.write_bytes(start)
    os.truncate(path, size)
    return path


def negative(name):
    """A member that sends the reader back to itself."""
    raw = bytearray(header(name, 0))
    raw[124:136] = (-512 + 256**12).to_bytes(12, "big")
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw)


def shard(*members):
    """A tar file of these members, in memory."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return data.getvalue()


def hostile(folder):
    """Data that is none: what it is → its path."""
    text = json.dumps(conversation()).encode()
    os.mkfifo(folder / "pipe.json")
    os.mkfifo(folder / "pipe.tar")
    for name in ("zero.json", "zero.jsonl", "zero.tar", "zero.parquet"):
        (folder / name).symlink_to("/dev/zero")
    for name in ("folder.json", "folder.tar"):
        (folder / name).mkdir()
    for name in ("shards", "tables"):
        (folder / name).mkdir()
    os.mkfifo(folder / "shards" / "0.tar")
    os.mkfifo(folder / "tables" / "0.parquet")
    hole(folder / "hole.json", 64 * GIGABYTE, b"[")
    hole(folder / "hole.jsonl", 64 * GIGABYTE, text)
    hole(folder / "hole.tar", 64 * GIGABYTE, header("a.png", 63 * GIGABYTE))
    hole(folder / "entry.tar", 64 * GIGABYTE, header("a.json", 200 * 2**20))
    hole(folder / "name.tar", 64 * GIGABYTE, header("a.png", 63 * GIGABYTE, tarfile.GNUTYPE_LONGNAME))
    hole(folder / "pax.tar", 64 * GIGABYTE, header("a.png", 63 * GIGABYTE, tarfile.XHDTYPE))
    (folder / "back.tar").write_bytes(negative("a.png") + negative("b.txt") + bytes(1024))
    (folder / "nested.tar").write_bytes(b"".join([header("a", 2, tarfile.GNUTYPE_LONGNAME) + bytes(512)] * 5000))
    megabyte = gzip.compress(bytes(2**20))  # what is compressed piece by piece unpacks like one
    bomb = (gzip.compress(header(f"{number}.png", 30 * 2**20)) + megabyte * 30 for number in range(34))
    (folder / "bomb.tar").write_bytes(b"".join(bomb))  # a gigabyte in one megabyte
    (folder / "skipped.tar").write_bytes(gzip.compress(header("a.txt", GIGABYTE)) + megabyte * 1024)
    pictures = ["/dev/zero", "/dev/random", str(folder / "pipe.json"), str(folder), "hole.png", "/proc/kmsg", "no.png"]
    hole(folder / "hole.png", 64 * GIGABYTE, b"\x89PNG\r\n\x1a\n")
    rows = [json.dumps(conversation(id=name, image=name)) for name in pictures]
    (folder / "pictures.jsonl").write_text("\n".join(rows))
    return pictures


def test_verify_ends_soon_in_bounded_memory(tmp_path):
    pictures = hostile(tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".png")
    arguments = [str(tmp_path / name) for name in names] + ["/dev/zero", "x" * 5000]
    run = subprocess.run(
        [sys.executable, "-c", LOOK, *arguments], capture_output=True, text=True, timeout=280, check=False
    )
    ended = {path: rest for path, *rest in map(json.loads, run.stdout.splitlines())}
    assert list(ended) == arguments, run.stderr[-2000:]
    for path, (code, seconds, told, _) in ended.items():
        assert code == 2 and told.startswith("igva: ") and "\n" not in told and len(told) < 500, (path, told)
        assert seconds < 10, (path, seconds)
    said = {path.rpartition("/")[2]: f"{told}{table}" for path, (_, _, told, table) in ended.items()}
    for name in ("pipe.json", "pipe.tar", "zero.json", "zero.jsonl", "zero.tar", "zero.parquet", "shards", "tables"):
        assert "is no regular file" in said[name], (name, said[name])
    assert "is zero: it is no text" in said["hole.json"] and "line 1: longer than 16 MB" in said["hole.jsonl"]
    for name in ("hole.tar", "entry.tar", "name.tar", "pax.tar", "bomb.tar", "skipped.tar"):
        assert "cannot be read on: " in said[name], (name, said[name])
    for name in ("back.tar", "nested.tar"):
        assert "is damaged or no tar file" in said[name]
    assert "missing pictures: 1, unreadable pictures: 6" in said["pictures.jsonl"]
    assert all(each in said["pictures.jsonl"] for each in pictures[:5])


@pytest.fixture
def pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    return tmp_path / "pipe.png"


def test_training_reads_through_the_same(tmp_path, pipe, write_tar):
    """Lists of records, streams, cells of tables, and the processor."""
    Dataset.from_list([conversation(image={"bytes": None, "path": str(pipe)})]).to_parquet(tmp_path / "x.parquet")
    (record,) = read_records(tmp_path / "x.parquet")
    for read in (image_bytes, open_image):
        with pytest.raises(UserError, match="no regular file"):
            read(record.images[0])
        with pytest.raises(UserError, match="no regular file"):
            read(pipe)
    with pytest.raises(BadImage, match="no regular file"):
        opened(pipe)
    with pytest.raises(UserError, match="no name of a file"):
        is_stream("x" * 5000)
    hole(tmp_path / "hole.tar", GIGABYTE, header("a.png", MAX_BYTES + 1))
    (error,) = scan_shard(tmp_path / "hole.tar")
    assert "hole.tar cannot be read on: its member a.png has" in str(error)


def test_a_picture_is_no_longer_than_any_picture(tmp_path, monkeypatch):
    monkeypatch.setattr("igva.model.pixels.MAX_BYTES", 100)
    (tmp_path / "a.png").write_bytes(bytes(101))
    for source in (tmp_path / "a.png", StoredImage.of("a", bytes(101))):
        for read in (image_bytes, open_image):
            with pytest.raises(UserError, match=r"a(\.png)? has 101 bytes; at most 100"):
                read(source)
    with pytest.raises(UserError, match="has 101 bytes"):
        open_image(io.BytesIO(bytes(101)))


def test_only_what_is_needed_of_a_shard_is_read(tmp_path, monkeypatch, content):
    """A film beside the sample is passed over, whatever its size; compressed shards are read like others."""
    picture = content[1]["0.png"]
    members = (("a.mp4", bytes(20_000)), ("a.json", json.dumps(conversation()).encode()), ("a.png", picture))
    monkeypatch.setattr(webdataset, "MAX_BYTES", len(picture) + 500)
    for name, pack in (("plain.tar", bytes), ("gzip.tar", gzip.compress)):
        (tmp_path / name).write_bytes(pack(shard(*members)))
        (record,) = scan(str(tmp_path / name))
        assert image_bytes(record.images[0]) == picture and record.held == len(picture)
    monkeypatch.setattr(webdataset, "MAX_BYTES", len(picture))
    (error,) = scan_shard(tmp_path / "plain.tar")
    assert "a.png has" in str(error)  # with the JSON the sample is too long


def test_what_unpacks_to_many_times_its_size_is_read_so_far(tmp_path, monkeypatch):
    monkeypatch.setattr(bounded, "MOST_UNPACKED", 3000)
    (tmp_path / "x.gz").write_bytes(gzip.compress(bytes(20_000)))
    with BoundedFile(tmp_path / "x.gz") as file:
        file.allow(10_000)
        assert file.read(1000) == bytes(1000) and file.seek(2500) == 2500 == file.tell()
        with pytest.raises(TooMuch, match="more than 100 times"):
            file.read(5000)
        with pytest.raises(OSError, match="front to back"):
            file.seek(0)
        file.allow(10)
        with pytest.raises(TooMuch, match="where 10 can be right"):
            file.read(11)


def test_pictures_in_memory_are_bounded(monkeypatch):
    """In verify and in the shuffled stream; what is not too much waits as before."""
    records = [Record(str(n), [], (StoredImage.of(str(n), bytes(100)),), "x") for n in range(40)]
    monkeypatch.setattr(verify, "CHUNK_BYTES", 1000)
    assert [len(chunk) for chunk in verify._chunks(records)] == [10] * 4
    taken = 0

    def source():
        nonlocal taken
        for number, record in enumerate(records):
            taken = number + 1
            yield (0, number), record

    monkeypatch.setattr(streams, "SHUFFLE_BYTES", 1000)
    ahead, seen = [], []
    for given, (place, _) in enumerate(streams._shuffled(source(), random.Random(0))):
        ahead.append(taken - given)
        seen.append(place[1])
    assert sorted(seen) == list(range(40)) and seen != list(range(40)) and max(ahead) == 11


def test_questions_are_read_through_the_same(tmp_path):
    """A file of questions for eval and compare, for studies, and for the probe's check."""
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "zero.json").symlink_to("/dev/zero")
    hole(tmp_path / "hole.json", 64 * GIGABYTE, b"[")
    for read in (read_questions, read_turns, read_test):
        for name in ("pipe.json", "zero.json"):
            with pytest.raises(UserError, match="is no regular file"):
                read(tmp_path / name)
        with pytest.raises(UserError, match="is zero: it is no text"):
            read(tmp_path / "hole.json")
