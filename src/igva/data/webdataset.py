"""WebDataset shards: tar files read from front to back, never unpacked.

A sample is the neighbouring members of one key: ``KEY.json``, an entry as LLaVA's JSON has it, and its pictures,
``KEY.jpg`` or ``KEY.0.jpg``, ``KEY.1.jpg`` and so on.
"""

from __future__ import annotations

import json
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from igva.data.bounded import MAX_ENTRY, BoundedFile, TooMuch, check_file
from igva.data.images import StoredImage
from igva.data.records import Record, Scan, check_entry, image_names, record_from, strict
from igva.errors import UserError
from igva.model.pixels import MAX_BYTES

HEADER_BYTES = 2**20  # of a member: its name and what else is told of it
_META = re.compile(r"__[^/]*__($|/)")  # names that tell something of the shard itself
_IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp", "gif", "bmp")
_MOST_BYTES = {"json": MAX_ENTRY} | dict.fromkeys(_IMAGE_SUFFIXES, MAX_BYTES)  # of members that are read at all


class RecordStream:
    """Records of several shards, in the shards' order.

    Attributes:
        shards: the files.
    """

    def __init__(self, shards: Sequence[Path]):
        self.shards = list(shards)

    def __iter__(self) -> Iterator[Record]:
        """All records; raises ``UserError`` at the first sample that is malformed."""
        for shard in self.shards:
            yield from strict(scan_shard(shard))


def is_webdataset(source: str) -> bool:
    """Whether a path names tar files: one, a brace pattern, or a folder that holds some."""
    return source.endswith(".tar") or (Path(source).is_dir() and any(Path(source).glob("*.tar")))


def find_shards(source: str) -> list[Path]:
    """The tar files behind a path, a brace pattern such as ``shards-{000..009}.tar``, or a folder.

    Raises:
        UserError: it is not on this disk, a shard is missing, or the package webdataset.
    """
    check_local(source)
    if Path(source).is_dir():
        paths = sorted(Path(source).glob("*.tar"))
    else:
        paths = [Path(source)] if Path(source).exists() else [Path(name) for name in _expand(source)]
    for path in paths:
        check_file(path, f"check the path or the pattern {source}")
    return paths


def check_local(source: str) -> None:
    """Raise ``UserError`` for what is not a path: the library would run a shell command to read it."""
    if source.startswith("pipe:") or "://" in source:
        raise UserError(f"{source} is not a file on this disk: download it first")


def _expand(pattern: str) -> list[str]:
    _library()
    import braceexpand

    try:
        return list(braceexpand.braceexpand(pattern))
    except ValueError as error:
        raise UserError(f"the pattern {pattern} cannot be read: write it as shards-{{000..009}}.tar") from error


def _library() -> Any:
    try:
        from webdataset import tariterators
    except ImportError as error:
        raise UserError("WebDataset shards need the package webdataset: pip install 'igva[data]'") from error
    return tariterators


def scan_shard(path: Path) -> Scan:
    """The samples of a tar file one by one; one that is malformed comes as its error, and so does a damaged end."""
    grouping = _library()
    source = re.sub(r"[-_.]?\d+$", "", path.stem) or path.parent.name  # all shards of a set are one source
    try:
        check_file(path)
        for sample in grouping.group_by_keys(_members(path, grouping.base_plus_ext)):
            try:
                yield _record(sample, path, source)
            except UserError as error:
                yield error
    except UserError as error:
        yield error
    except TooMuch as error:
        yield UserError(f"{path} cannot be read on: {error}; pack it anew")
    except (OSError, tarfile.TarError, ValueError, EOFError, OverflowError, RecursionError, zlib.error) as error:
        yield UserError(f"{path} is damaged or no tar file ({error.args[0]}): get a fresh copy")


def _members(path: Path, key_of: Callable[[str], tuple[str | None, str | None]]) -> Iterator[dict[str, Any]]:
    """The JSON and the pictures of a tar file, as the library's ``group_by_keys`` takes them.

    The library's own reader takes members whole, whatever their size, and some names for shell commands.

    Raises:
        TooMuch: what stands around the members, or what belongs to one key, is longer than it can rightly be.
    """
    with BoundedFile(path) as file:
        file.allow(HEADER_BYTES)
        with tarfile.open(fileobj=file, mode="r:") as tar:
            last, together, offset = None, 0, -1
            while (member := tar.next()) is not None:
                if tar.offset <= offset or member.size < 0:  # or it would be read for ever
                    raise tarfile.ReadError("a member of negative length")
                offset = tar.offset
                tar.members = []  # type: ignore[attr-defined]  # else it keeps them all
                key, suffix = key_of(member.name)
                if member.isreg() and not _META.match(member.name):
                    data = b""
                    if suffix is not None and (kind := suffix.lower().rpartition(".")[2]) in _MOST_BYTES:
                        together = member.size + (together if key == last else 0)
                        last = key
                        if together > MAX_BYTES or member.size > _MOST_BYTES[kind]:
                            raise TooMuch(f"its member {member.name[:100]} has {member.size:,} bytes")
                        file.allow(member.size)
                        content = tar.extractfile(member)
                        data = b"" if content is None else content.read()
                    yield {"fname": member.name, "data": data, "__url__": str(path)}
                file.allow(HEADER_BYTES)


def _record(sample: dict[str, Any], path: Path, source: str) -> Record:
    """One sample of the library: ``__key__``, and the bytes of each member under its suffix."""
    key = sample["__key__"]
    where = f"{path}, sample {key}"
    if "json" not in sample:
        raise UserError(f"{where}: it has no {key}.json: each sample needs one")
    try:
        entry = json.loads(sample["json"].decode())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: {key}.json is not valid JSON") from error
    check_entry(entry, where)
    suffixes = [suffix for suffix in sample if suffix.rpartition(".")[2] in _IMAGE_SUFFIXES]
    ordered = _named(image_names(entry, where), key, suffixes, where)
    images = [StoredImage.of(f"{path}/{key}.{suffix}", sample[suffix]) for suffix in ordered]
    return record_from(entry, images, where=where, name=key, source=source)


def _named(names: list[str], key: str, suffixes: list[str], where: str) -> list[str]:
    """The picture members in the order in which the entry names them.

    Where it names none of them (what the pictures were called before they were packed), in the order of their numbers.
    """
    members = {f"{Path(key).name}.{suffix}": suffix for suffix in suffixes} | {suffix: suffix for suffix in suffixes}
    found = [members.get(Path(name).name.lower(), members.get(Path(name).name)) for name in names]
    if not any(found):
        return sorted(suffixes, key=_by_numbers)
    if None in found:
        missing = names[found.index(None)]
        raise UserError(f"{where}: there is no picture {missing} in the shard: pack it, or fix its name")
    return [suffix for suffix in found if suffix]


def _by_numbers(text: str) -> list[Any]:
    """Sorts 2 before 10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", text)]
