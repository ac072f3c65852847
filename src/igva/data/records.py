"""Chat records, and how an entry of a data set becomes one; the formats have files of their own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from igva.data.images import ImageSource, StoredImage
from igva.errors import UserError

IMAGE_KEYS = ("image", "images")
TURN_KEYS = ("conversations", "messages")
PLACEHOLDER = "<image>"
_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}


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
    images: tuple[ImageSource, ...]
    source: str
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def held(self) -> int:
        """Bytes of its pictures that are in memory."""
        return sum(image.held for image in self.images if isinstance(image, StoredImage))


# What a format's reader gives: each sample, or in its place what is wrong with it.
Scan = Iterator[Record | UserError]


def strict(scan: Iterable[Record | UserError]) -> Iterator[Record]:
    """The records of a scan; raises at the first sample that is not one."""
    for item in scan:
        if isinstance(item, UserError):
            raise item
        yield item


def record_from(entry: Any, images: Sequence[ImageSource], *, where: str, name: str, source: str) -> Record:
    """Check one entry and make it a record.

    Args:
        entry: what the file holds: turns under ``conversations`` or ``messages``, each either LLaVA's
            (``from``, ``value``) or OpenAI's (``role``, ``content``: a string, or a list of text and image parts).
        images: its pictures.
        where: in which file and row, for messages.
        name, source: stand in for its ``id`` and its ``source`` or ``task`` where it has none.

    Raises:
        UserError: no turns, roles out of order, or placeholders and pictures that differ in number.
    """
    check_entry(entry, where)
    identity = _first(entry, ("id",))
    name = name if identity is None else str(identity)
    where = f"{where} (id {name})"
    turns = _first(entry, TURN_KEYS)
    if not isinstance(turns, list) or not turns:
        raise UserError(f"{where}: it has no conversations")
    chat = [_message(turn, where) for turn in turns]
    _check_roles([m["role"] for m in chat], where)
    places = sum(item["type"] == "image" for m in chat for item in m["content"])
    if places == 0 and images:  # LLaVA puts the picture first where the text does not say where it goes
        first = next(m for m in chat if m["role"] == "user")
        first["content"] = [{"type": "image", "image": None} for _ in images] + first["content"]
    elif places != len(images):
        raise UserError(f"{where}: {places} {PLACEHOLDER} placeholders but {len(images)} images")
    extra = {k: v for k, v in entry.items() if k not in ("id", *IMAGE_KEYS, *TURN_KEYS) and v is not None}
    return Record(name, chat, tuple(images), str(_first(entry, ("source", "task")) or source), extra)


def check_entry(entry: Any, where: str) -> None:
    """Raise ``UserError`` unless an entry is an object."""
    if not isinstance(entry, dict):
        raise UserError(f"{where}: an object is expected, not a {type(entry).__name__}")


def image_names(entry: dict[str, Any], where: str) -> list[str]:
    """The file names an entry gives for its pictures.

    Raises:
        UserError: they are not text.
    """
    names = _first(entry, IMAGE_KEYS) or []
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise UserError(f"{where}: its image is neither a file name nor a list of file names")
    return names


def _first(entry: dict[str, Any], keys: Sequence[str]) -> Any:
    """The value of the first of these keys that has one: a table has all its columns in every row."""
    return next((entry[key] for key in keys if entry.get(key) is not None), None)


def _message(turn: Any, where: str) -> dict[str, Any]:
    turn = turn if isinstance(turn, dict) else {}
    role, content = _ROLES.get(str(_first(turn, ("from", "role")))), _first(turn, ("value", "content"))
    items = _items(content) if not isinstance(content, str) else _split(content) if role == "user" else _text(content)
    if role is None or items is None:
        raise UserError(f"{where}: a turn needs a role ({', '.join(sorted(_ROLES))}) and a text")
    if role != "user" and any(item["type"] == "image" for item in items):
        raise UserError(f"{where}: a picture stands in a turn of role {role}: only a user shows pictures")
    if not _encodable(items):
        raise UserError(f"{where}: its text holds half a character (a lone surrogate): write it as UTF-8 again")
    return {"role": role, "content": items}


def _split(text: str) -> list[dict[str, Any]]:
    """LLaVA's user text: a placeholder stands for a picture, line ends around it are not part of the text."""
    items: list[dict[str, Any]] = []
    for i, part in enumerate(text.split(PLACEHOLDER)):
        if i:
            items.append({"type": "image", "image": None})
        items += _text(part.strip("\n"))
    return items


def _text(text: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": text}] if text else []


def _items(parts: Any) -> list[dict[str, Any]] | None:
    """OpenAI's content parts, in which a typed placeholder is text; None if they are something else."""
    if not isinstance(parts, list):
        return None
    items: list[dict[str, Any]] = []
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in ("image", "image_url"):
            items.append({"type": "image", "image": None})
        elif kind == "text" and isinstance(part.get("text"), str):
            items += _text(part["text"])
        else:
            return None
    return items


def _encodable(items: list[dict[str, Any]]) -> bool:
    try:
        "".join(item.get("text", "") for item in items).encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_roles(roles: list[str], where: str) -> None:
    turns = roles[1:] if roles[0] == "system" else roles
    expected = ["user", "assistant"] * ((len(turns) + 1) // 2)
    if turns != expected[: len(turns)] or len(turns) % 2 or not turns:
        raise UserError(f"{where}: turns must alternate user, assistant and end with assistant; they are {roles}")
