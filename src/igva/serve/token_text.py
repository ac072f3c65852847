"""Text from tokens as they come: whole characters, nothing beyond a stop string."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenizers.decoders import DecodeStream


class TokenText:
    """The text of one answer.

    What may be the beginning of a stop string is held back until the next token tells.

    Args:
        tokenizer: a fast tokenizer of transformers.
        stops: the text ends before the first of these.

    Attributes:
        stopped: a stop string was found.
    """

    def __init__(self, tokenizer: Any, stops: Sequence[str] = ()):
        self._tokenizer = tokenizer
        self._stream = DecodeStream(skip_special_tokens=True)
        self._stops = tuple(stops)
        self._tokens: list[int] = []
        self._read = ""  # all text so far, whether held back or not
        self._held = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """The text that is certain now."""
        if self.stopped:
            return ""
        self._tokens.append(token)
        new = self._stream.step(self._tokenizer.backend_tokenizer, token) or ""
        self._read += new
        self._held += new
        places = [place for stop in self._stops if (place := self._held.find(stop)) >= 0]
        if places:
            self.stopped = True
            text, self._held = self._held[: min(places)], ""
            return text
        keep = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        text = self._held[: len(self._held) - keep]
        self._held = self._held[len(text) :]
        return text

    def end(self) -> str:
        """What was held back, once no more tokens come; half a character becomes a replacement character."""
        if self.stopped:
            return ""
        whole = self._tokenizer.decode(self._tokens, skip_special_tokens=True)
        rest = whole[len(self._read) :] if whole.startswith(self._read) else ""
        text, self._held = self._held + rest, ""
        return text


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of the text are the beginning of the stop string."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
