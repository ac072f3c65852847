"""LLaVA data: a JSON list, or one JSON object per line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from igva.data.bounded import check_file, lines, whole_text
from igva.data.records import Record, Scan, check_entry, image_names, record_from, strict
from igva.errors import UserError


def read_llava(path: str | Path, image_root: str | Path | None = None) -> list[Record]:
    """Read LLaVA data.

    Args:
        image_root: the folder that image paths start from; default: the file's own.

    Raises:
        UserError: the file or an entry is malformed; the message names the line or sample.
    """
    return list(strict(scan_llava(Path(path), image_root)))


def scan_llava(path: Path, image_root: str | Path | None = None) -> Scan:
    """The samples of a file one by one; one that is malformed comes as its error.

    Raises:
        UserError: the file or the folder of its images is missing, it is not JSON as a whole, or it is empty.
    """
    check_file(path, "check the path, or make data with `igva probe build`")
    root = image_folder(image_root, path.parent)
    number = -1
    for number, entry in enumerate(_lines(path) if path.suffix == ".jsonl" else _whole(path)):
        if isinstance(entry, UserError):
            yield entry
            continue
        where = f"{path}, sample {number}"
        try:
            check_entry(entry, where)
            images = [root / name for name in image_names(entry, where)]
            yield record_from(entry, images, where=where, name=str(number), source=path.stem)
        except UserError as error:
            yield error
    if number < 0:
        raise UserError(f"{path} holds no samples: check that it is the right file")


def image_folder(image_root: str | Path | None, default: Path) -> Path:
    """The folder that image paths start from.

    Raises:
        UserError: it does not exist.
    """
    root = Path(image_root) if image_root is not None else default
    if not root.is_dir():
        raise UserError(f"the image folder {root} does not exist: check image_root")
    return root


def _whole(path: Path) -> list[Any]:
    try:
        entries = json.loads(whole_text(path).decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}: not valid JSON ({error.msg})") from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({_reason(error)})") from error
    if not isinstance(entries, list):
        raise UserError(f"{path}: a list of samples is expected, not a {type(entries).__name__}")
    return entries


def _lines(path: Path) -> Iterator[Any]:
    """One value per line that is not blank."""
    for number, line in enumerate(lines(path), 1):
        if isinstance(line, UserError):
            yield line
        elif line.strip():
            try:
                yield json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except json.JSONDecodeError as error:
                yield UserError(f"{path}, line {number}: not valid JSON ({error.msg})")
            except (UnicodeDecodeError, RecursionError) as error:
                yield UserError(f"{path}, line {number}: not valid JSON ({_reason(error)})")


def _reason(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else "it is not UTF-8"
