"""What data is, recognised by what it looks like: one way in for every format."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from igva.data.bounded import check_file, check_name
from igva.data.hf_datasets import is_hf_dataset, scan_hf
from igva.data.llava_json import scan_llava
from igva.data.records import Record, Scan, strict
from igva.data.webdataset import RecordStream, check_local, find_shards, is_webdataset, scan_shard
from igva.errors import UserError

Source = str | Path
FORMATS = "LLaVA .json or .jsonl, a Hugging Face data set (folder, .parquet, .arrow, hf:NAME), or WebDataset .tar"


def is_stream(source: Any) -> bool:
    """Whether data is read from front to back: WebDataset shards, also as part of a list."""
    sources = [source] if isinstance(source, (str, Path)) else source
    names = [str(item) for item in sources if isinstance(item, (str, Path))]
    for name in names:
        check_name(name)
    return any(map(is_webdataset, names))


def read_records(
    source: Source | Sequence[Source], image_root: str | Path | None = None, leave_out: Sequence[str] = ()
) -> list[Record]:
    """All records of data that is not a stream; several sources one after another.

    Args:
        source: a path, ``hf:NAME``, ``hf:NAME:SPLIT`` or ``hf:NAME@CONFIGURATION:SPLIT``; or a list of them.
        image_root: the folder that image paths start from; default: where the data lies.
        leave_out: records whose ``source`` is one of these are left out.

    Raises:
        UserError: a source is missing, of no known format or a stream, or an entry is malformed; the message names
            the file and the line, sample or row. No record is of a source to leave out, or all are.
    """
    records: list[Record] = []
    for item in _listed(source):
        if is_webdataset(item):
            raise UserError(f"{item} is streamed and has no list of records: give a file or a Hugging Face data set")
        records += strict(scan(item, image_root))
    there = sorted({record.source for record in records})
    for name in leave_out:
        if name not in there:
            raise UserError(f"data.leave_out names {name!r}: the data has {', '.join(there)}")
    kept = [record for record in records if record.source not in leave_out]
    if records and not kept:
        raise UserError("data.leave_out leaves nothing to learn from: name fewer sources")
    return kept


def open_stream(source: Source | Sequence[Source], image_root: str | Path | None = None) -> RecordStream:
    """The records of WebDataset shards, read when they are asked for; several sources one after another.

    Args:
        image_root: refused: the pictures are in the shards.

    Raises:
        UserError: a shard is missing, or a source is no WebDataset.
    """
    if image_root is not None:
        raise UserError("image_root has no meaning for WebDataset shards, which hold their pictures: leave it out")
    shards: list[Path] = []
    for item in _listed(source):
        if not is_webdataset(item):
            raise UserError(f"{item} is no WebDataset: streams and other data cannot be mixed")
        shards += find_shards(item)
    return RecordStream(shards)


def scan(source: Source, image_root: str | Path | None = None) -> Scan:
    """The samples of one source of any format; one that is malformed comes as its error.

    Raises:
        UserError: it is missing, of no known format, or not readable as a whole.
    """
    source = str(source)
    check_name(source)
    if is_webdataset(source):
        for shard in open_stream(source, image_root).shards:
            yield from scan_shard(shard)
    else:
        yield from _scan_listed(source, image_root)


def _scan_listed(source: str, image_root: str | Path | None) -> Iterable[Record | UserError]:
    if is_hf_dataset(source):
        return scan_hf(source, image_root)
    check_local(source)
    path = Path(source)
    if path.is_dir():
        raise UserError(f"{source} is a folder without tar, parquet or arrow files: name the data file in it")
    if path.exists():
        check_file(path)
    if path.exists() and path.suffix not in (".json", ".jsonl"):
        raise UserError(f"{source} is of no known format: use {FORMATS}")
    return scan_llava(path, image_root)


def _listed(source: Source | Sequence[Source]) -> list[str]:
    sources = [source] if isinstance(source, (str, Path)) else list(source)
    if not sources:
        raise UserError("no data is named: give at least one path")
    return [str(item) for item in sources]
