"""Text from tokens as they come: whole characters, nothing beyond a stop string."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from transformers.convert_slow_tokenizer import bytes_to_unicode

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")  # a byte-fallback token of Llama-2's kind
_SPACE = "▁"  # of sentencepiece
_BYTES = {character: byte for byte, character in bytes_to_unicode().items()}  # of byte-level tokenizers
_UNFINISHED = "\ufffd"


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
        self._stops = tuple(stops)
        self._special = {id for id, added in tokenizer.added_tokens_decoder.items() if added.special}
        self._window: list[int] = []  # the tokens whose text is not all given yet, and some before them
        self._before = 0  # how many those are
        self._given = ""  # of the window's text
        self._held = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """The text that is certain now."""
        if self.stopped:
            return ""
        self._held += self._read(token)
        starts = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if starts:
            self.stopped = True
            text, self._held = self._held[: min(starts)], ""
            return text
        keep = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        text = self._held[: len(self._held) - keep]
        self._held = self._held[len(text) :]
        return text

    def end(self) -> str:
        """What was held back, once no more tokens come; half a character becomes a replacement character."""
        if self.stopped:
            return ""
        text, self._held = self._held + self._new(self._decoded(self._window)), ""
        return text

    def _read(self, token: int) -> str:
        """The text that the token completes: nothing is given that a later token could change.

        A run of byte tokens reads as characters or, where one of them is wrong, as replacement characters all along:
        it waits for its end, which a special token is not. Of other tokens the last character may be unfinished.
        """
        self._window.append(token)
        if token in self._special or _BYTE.fullmatch(self._tokenizer.convert_ids_to_tokens(token) or ""):
            return ""
        text = self._decoded(self._window)
        certain = text.rstrip(_UNFINISHED)
        new = self._new(certain)
        self._given += new
        if new and certain == text:
            # How a token reads depends on what stands before it, a leading space for one: some of it stays.
            self._window = self._window[self._before :]
            self._before = len(self._window)
            self._given = self._decoded(self._window)
        return new

    def _new(self, text: str) -> str:
        return text[len(self._given) :] if text.startswith(self._given) else ""

    def _decoded(self, tokens: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text


def token_bytes(tokenizer: Any, token: int) -> bytes:
    """The bytes of one token, which need not be whole characters."""
    text: str = tokenizer.decode([token], clean_up_tokenization_spaces=False)
    piece = tokenizer.convert_ids_to_tokens(token) or ""
    if _SPACE in piece:  # the decoder leaves a text's first one out
        return piece.replace(_SPACE, " ").encode()
    if _UNFINISHED not in text or not piece:
        return text.encode()
    if _BYTE.fullmatch(piece):
        return bytes([int(piece[3:5], 16)])
    known = all(character in _BYTES for character in piece)
    return bytes(_BYTES[character] for character in piece) if known else text.encode()


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of the text are the beginning of the stop string."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
