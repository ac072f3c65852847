"""WebDataset shards: tar files read from front to back, never unpacked.

A sample is the neighbouring members of one key: ``KEY.json``, an entry as LLaVA's JSON has it, and its pictures,
``KEY.jpg`` or ``KEY.0.jpg``, ``KEY.1.jpg`` and so on.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from igva.data.images import StoredImage
from igva.data.records import Record, Scan, check_entry, image_names, record_from, strict
from igva.errors import UserError

_IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp", "gif", "bmp")


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
        return sorted(Path(source).glob("*.tar"))
    paths = [Path(source)] if Path(source).is_file() else [Path(name) for name in _expand(source)]
    for path in paths:
        if not path.is_file():
            raise UserError(f"the shard {path} does not exist: check the path or the pattern {source}")
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
    tar = _library()
    source = re.sub(r"[-_.]?\d+$", "", path.stem) or path.parent.name  # all shards of a set are one source
    try:
        with path.open("rb") as file:
            # Opened here and not by the library, which takes some names for shell commands.
            members = tar.tar_file_expander([{"url": str(path), "stream": file}])
            for sample in tar.group_by_keys(members):
                try:
                    yield _record(sample, path, source)
                except UserError as error:
                    yield error
    except (OSError, tarfile.TarError, ValueError, EOFError) as error:
        yield UserError(f"{path} is damaged or no tar file ({error.args[0]}): get a fresh copy")


def _record(sample: dict[str, Any], path: Path, source: str) -> Record:
    """One sample of the library: ``__key__``, and the bytes of each member under its suffix."""
    key = sample["__key__"]
    place = f"{path}, sample {key}"
    if "json" not in sample:
        raise UserError(f"{place}: it has no {key}.json: each sample needs one")
    try:
        entry = json.loads(sample["json"].decode())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place}: {key}.json is not valid JSON") from error
    check_entry(entry, place)
    suffixes = [suffix for suffix in sample if suffix.rpartition(".")[2] in _IMAGE_SUFFIXES]
    ordered = _named(image_names(entry, place), key, suffixes, place)
    images = [StoredImage.of(f"{path}/{key}.{suffix}", sample[suffix]) for suffix in ordered]
    return record_from(entry, images, place=place, name=key, source=source)


def _named(names: list[str], key: str, suffixes: list[str], place: str) -> list[str]:
    """The picture members in the order in which the entry names them.

    Where it names none of them (what the pictures were called before they were packed), in the order of their numbers.
    """
    members = {f"{Path(key).name}.{suffix}": suffix for suffix in suffixes} | {suffix: suffix for suffix in suffixes}
    found = [members.get(Path(name).name.lower(), members.get(Path(name).name)) for name in names]
    if not any(found):
        return sorted(suffixes, key=_by_numbers)
    if None in found:
        missing = names[found.index(None)]
        raise UserError(f"{place}: there is no picture {missing} in the shard: pack it, or fix its name")
    return [suffix for suffix in found if suffix]


def _by_numbers(text: str) -> list[Any]:
    """Sorts 2 before 10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", text)]
