"""Hugging Face data sets: saved to disk, as parquet or arrow files, or by name; pictures stay in the table."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from igva.data.bounded import check_file
from igva.data.images import ImageSource, StoredImage, image_bytes
from igva.data.llava_json import image_folder
from igva.data.records import IMAGE_KEYS, TURN_KEYS, Scan, record_from
from igva.errors import UserError
from igva.paths import home

PREFIX = "hf:"
SUFFIXES = ("parquet", "arrow")
SPLITS = {"train": "train|training", "validation": "validation|valid|val|dev", "test": "test|testing|eval|evaluation"}


def is_hf_dataset(source: str) -> bool:
    """Whether a source is ``hf:NAME``, a folder saved by ``save_to_disk``, or table files."""
    return source.startswith(PREFIX) or _is_saved(Path(source)) or bool(_table_files(Path(source)))


def scan_hf(source: str, image_root: str | Path | None = None) -> Scan:
    """The samples of a data set one by one; one that is malformed comes as its error.

    Columns: ``messages`` or ``conversations``; ``images`` or ``image``, as pictures, encoded bytes or paths.

    Args:
        image_root: the folder that image paths start from; default: the data set's own.

    Raises:
        UserError: the data set cannot be loaded, is empty, or has no column of turns.
    """
    table = _load(source)
    path = Path(source)
    root = image_folder(image_root, Path() if source.startswith(PREFIX) else path if path.is_dir() else path.parent)
    if not any(column in table.column_names for column in TURN_KEYS):
        raise UserError(f"{source} has the columns {', '.join(table.column_names)}: one named messages is needed")
    if not len(table):
        raise UserError(f"{source} holds no samples: check that it is the right one")
    # A mask, a thumbnail, a sound beside the pictures would be decoded row by row.
    left_out = [each for each, kind in table.features.items() if each in IMAGE_KEYS or _is_media(kind)]
    texts = table.remove_columns(left_out).with_format(None)
    columns = [_images(table, each, source, root) for each in IMAGE_KEYS if each in table.column_names]
    # Of data sets put together one column may be filled here and the other there.
    filled = (next(filter(None, row), ()) for row in zip(*columns, strict=True))
    pictures: Iterator[Sequence[ImageSource]] = filled if columns else iter(() for _ in range(len(table)))
    name = path.stem or path.resolve().name
    for row, (entry, images) in enumerate(zip(texts, pictures, strict=True)):
        try:
            yield record_from(entry, images, where=f"{source}, row {row}", name=str(row), source=name)
        except UserError as error:
            yield error


def _is_media(kind: Any) -> bool:
    """Whether a column's kind is pictures, sounds or videos, or lists of them."""
    while (inner := getattr(kind, "feature", None)) is not None:
        kind = inner
    return type(kind).__name__ in ("Image", "Audio", "Video", "Pdf")


@dataclass(frozen=True)
class _Cell:
    """Reads one picture of a table. The file behind the table is mapped: nothing is held in memory."""

    table: Any  # in arrow format, which hands out pictures as they are stored
    column: str
    row: int
    item: int | None  # which of a list; None where the column holds one picture
    root: Path

    def __call__(self) -> bytes:
        value = self.table[self.row][self.column][0]
        value = (value if self.item is None else value[self.item]).as_py()
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, bytes):
            return value
        if value is None:
            raise FileNotFoundError("the table holds neither bytes nor a path")
        return image_bytes(self.root / value)


def _images(table: Any, column: str, source: str, root: Path) -> Iterator[Sequence[ImageSource]]:
    """The pictures of each row; only their number is read now, and where they are paths, these."""
    import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]
    import pyarrow.compute as pc  # type: ignore[import-untyped, unused-ignore]

    is_fixed = pa.types.is_fixed_size_list
    stored = table.with_format("arrow").select_columns([column])
    row = 0
    for batch in stored.iter(batch_size=1000):
        cells = batch[column]
        lists = any(is_kind(cells.type) for is_kind in (pa.types.is_list, pa.types.is_large_list, is_fixed))
        paths = pa.types.is_string(cells.type.value_type if lists else cells.type)
        counts = pc.list_value_length(cells) if lists else cells.is_valid().cast(pa.int32())
        for values, count in zip(cells if paths else [None] * len(cells), counts.to_pylist(), strict=True):
            if paths:
                value = values.as_py()
                names = value if lists else [value]
                yield [root / name for name in names or () if name]
            else:
                items = range(count or 0) if lists else [None] * count
                yield [
                    StoredImage(f"{source}, row {row}, picture {n}", _Cell(stored, column, row, item, root))
                    for n, item in enumerate(items)
                ]
            row += 1


def _load(source: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise UserError("Hugging Face data sets need the package datasets: pip install 'igva[data]'") from error
    path = Path(source)
    try:
        if source.startswith(PREFIX):
            where, _, split = source.removeprefix(PREFIX).partition(":")
            name, _, config = where.partition("@")
            loaded = _by_name(datasets, name, config or None, split or "train")
        elif _is_saved(path):
            for file in path.rglob("*.arrow"):
                check_file(file)
            loaded = datasets.load_from_disk(source)
        else:
            files = _table_files(path)
            for file in files:
                check_file(file)
            cache = str(home() / "datasets")
            loaded = datasets.load_dataset(files[0].suffix[1:], data_files=list(map(str, files)), cache_dir=cache)
            loaded = loaded["train"]
    except UserError:
        raise
    except Exception as error:  # the library lets through whatever its readers raise
        reason = str(error.__cause__ or error).strip().split("\n")[0]
        raise UserError(f"{source} cannot be loaded as a Hugging Face data set: {reason}") from error
    if isinstance(loaded, datasets.DatasetDict):
        raise UserError(f"{source} holds the splits {', '.join(loaded)}: name one, such as {path / next(iter(loaded))}")
    return loaded


def _by_name(datasets: Any, name: str, config: str | None, split: str) -> Any:
    try:
        return datasets.load_dataset(name, **({"name": config} if config else {}), split=split)
    except ValueError as error:
        if config is not None or "config name is missing" not in str(error).lower():
            raise
        configs = datasets.get_dataset_config_names(name)
        example = f"{PREFIX}{name}@{configs[0]}"
        raise UserError(
            f"{PREFIX}{name} has the configurations {', '.join(configs)}: name one, such as {example}"
        ) from error


def _is_saved(path: Path) -> bool:
    return (path / "dataset_dict.json").is_file() or (path / "state.json").is_file()


def _table_files(path: Path) -> list[Path]:
    """The file itself, or those of a folder, all of one kind; where their names tell splits, those of ``train``.

    Raises:
        UserError: they are of several splits, none of which is ``train``.
    """
    if path.is_file():
        return [path] if path.suffix[1:] in SUFFIXES else []
    files = next(filter(None, (sorted(path.rglob(f"*.{suffix}")) for suffix in SUFFIXES)), [])
    splits: dict[str, list[Path]] = {}
    for file in files:
        splits.setdefault(_split_of(file.relative_to(path)), []).append(file)
    if len(splits) < 2 or "train" in splits:
        return splits.get("train", files)
    named = ", ".join(sorted(filter(None, splits)))
    raise UserError(f"{path} holds the splits {named}: name a file or folder of one of them")


def _split_of(file: Path) -> str:
    """The split that a file's name or a folder's tells, as on the hub; empty where none does."""
    for part in reversed(file.parts):
        for split, pattern in SPLITS.items():
            if re.search(rf"(?:^|[^a-z])(?:{pattern})(?:[^a-z]|$)", part.lower()):
                return split
    return ""
