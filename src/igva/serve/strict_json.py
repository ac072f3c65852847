"""JSON of strangers: what Python's reader lets through or stumbles over becomes one reason."""

from __future__ import annotations

import json
from typing import Any


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
