"""JSON of strangers: what Python's reader lets through or stumbles over becomes one reason."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

PIECE = 2**16  # bytes: a few of Python's operations on so many take no longer than a thread may keep the interpreter


def pieces(data: bytes) -> Iterator[bytes]:
    """The bytes, one piece after another.

    An operation on bytes keeps the interpreter until it is done: megabytes at once would hold up the model's thread.
    """
    return (data[start : start + PIECE] for start in range(0, len(data), PIECE))


def read_json(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is none, is nested too deeply, or holds half a character, which no UTF-8 text can; the message is
            the end of a sentence about it.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8-sig")  # left to itself, json takes halves of characters, and UTF-16
        value = json.loads(text)
        if "\\" in text and ("\\ud" in text or "\\uD" in text):  # one character is found ten times as fast
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8") from None
    except UnicodeEncodeError:
        raise ValueError("holds half a character (a lone surrogate)") from None
    except ValueError as error:
        raise ValueError(f"is not JSON: {error}") from None
    return value
