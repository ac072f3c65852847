"""Training and evaluation data → chat records: LLaVA JSON and JSON Lines."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from igva.errors import UserError

_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
_PLACEHOLDER = "<image>"


@dataclass(frozen=True)
class Record:
    """One conversation.

    Attributes:
        id: names the sample in messages.
        chat: messages whose content is a list of text and image items; an image item's ``image`` is None, its
            picture is the next of ``images``.
        images: the pictures, in the order of the placeholders.
        source: what data set or task it comes from, for per-source figures.
        extra: the fields of the entry that are not part of the conversation.
    """

    id: str
    chat: list[dict[str, Any]]
    images: tuple[Path, ...]
    source: str
    extra: dict[str, Any] = field(default_factory=dict)


def read_llava(path: str | Path, image_root: str | Path | None = None) -> list[Record]:
    """Read LLaVA data: a JSON list, or one JSON object per line (``.jsonl``).

    Args:
        image_root: the folder that image paths start from; default: the file's own.

    Raises:
        UserError: the file or an entry is malformed; the message names the line or sample.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} does not exist: check data.train, or make the data with `igva probe build`")
    root = Path(image_root) if image_root is not None else path.parent
    if not root.is_dir():
        raise UserError(f"the image folder {root} does not exist: check data.image_root")
    entries = _read_entries(path)
    if not entries:
        raise UserError(f"{path} holds no samples")
    return [_record(entry, number, path, root) for number, entry in enumerate(entries)]


def _read_entries(path: Path) -> list[dict[str, Any]]:
    text = path.read_text(encoding="utf-8")
    try:
        if path.suffix == ".jsonl":
            return [_read_line(line, number, path) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
        entries = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}: not valid JSON ({error.msg})") from error
    if not isinstance(entries, list):
        raise UserError(f"{path}: a list of samples is expected, not a {type(entries).__name__}")
    return entries


def _read_line(line: str, number: int, path: Path) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {number}: not valid JSON ({error.msg})") from error


def _record(entry: Any, number: int, path: Path, root: Path) -> Record:
    where = f"{path}, sample {number}"
    if not isinstance(entry, dict):
        raise UserError(f"{where}: an object is expected, not a {type(entry).__name__}")
    name = str(entry.get("id", number))
    where = f"{path}, sample {number} (id {name})"
    turns = entry.get("conversations", entry.get("messages"))
    if not isinstance(turns, list) or not turns:
        raise UserError(f"{where}: it has no conversations")
    files = entry.get("image", entry.get("images")) or []
    files = [files] if isinstance(files, str) else list(files)
    chat = [_message(turn, where) for turn in turns]
    _check_roles([m["role"] for m in chat], where)
    places = sum(item["type"] == "image" for m in chat for item in m["content"])
    if places == 0 and files:  # LLaVA puts the picture first where the text does not say where it goes
        first = next(m for m in chat if m["role"] == "user")
        first["content"] = [{"type": "image", "image": None} for _ in files] + first["content"]
    elif places != len(files):
        raise UserError(f"{where}: {places} {_PLACEHOLDER} placeholders but {len(files)} images")
    extra = {k: v for k, v in entry.items() if k not in ("id", "image", "images", "conversations", "messages")}
    source = str(entry.get("source", entry.get("task", path.stem)))
    return Record(name, chat, tuple(root / file for file in files), source, extra)


def _message(turn: Any, where: str) -> dict[str, Any]:
    role = turn.get("from", turn.get("role")) if isinstance(turn, dict) else None
    value = turn.get("value", turn.get("content")) if isinstance(turn, dict) else None
    if role not in _ROLES or not isinstance(value, str):
        raise UserError(f"{where}: a turn needs a role ({', '.join(sorted(_ROLES))}) and a text")
    content: list[dict[str, Any]] = []
    for i, part in enumerate(value.split(_PLACEHOLDER) if _ROLES[role] == "user" else [value]):
        if i:
            content.append({"type": "image", "image": None})
        if text := part.strip("\n") if _ROLES[role] == "user" else part:
            content.append({"type": "text", "text": text})
    return {"role": _ROLES[role], "content": content}


def _check_roles(roles: list[str], where: str) -> None:
    turns = roles[1:] if roles[0] == "system" else roles
    expected = ["user", "assistant"] * ((len(turns) + 1) // 2)
    if turns != expected[: len(turns)] or len(turns) % 2:
        raise UserError(f"{where}: turns must alternate user, assistant and end with assistant; they are {roles}")
