"""Text from tokens: whole characters, nothing beyond a stop string."""

from __future__ import annotations

import pytest

from igva.serve.token_text import TokenText
from igva.testing import tiny_tokenizer

TOKENIZER = tiny_tokenizer()  # one token a byte


def pieces(text: str, *stops: str) -> tuple[list[str], str]:
    """What comes with each token, and what at the end."""
    reader = TokenText(TOKENIZER, stops)
    ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    return [reader.push(token) for token in ids], reader.end()


def test_characters_of_several_bytes_come_whole():
    parts, rest = pieces("a → ü 🦉!")
    assert "".join(parts) + rest == "a → ü 🦉!"
    assert all("\ufffd" not in part for part in parts)


@pytest.mark.parametrize(
    ("text", "stops", "expected"),
    [
        ("one two three", ["two"], "one "),
        ("one two three", ["three", "two"], "one "),
        ("ababac", ["abac"], "ab"),
        ("no stop he", ["here"], "no stop he"),
        ("aaab", ["aab"], "a"),
        ("end\n\nmore", ["\n\n"], "end"),
        ("x", ["x"], ""),
    ],
)
def test_stop_strings(text, stops, expected):
    parts, rest = pieces(text, *stops)
    assert "".join(parts) + rest == expected
    assert not any(stop in "".join(parts) for stop in stops)


def test_special_tokens_are_not_shown():
    reader = TokenText(TOKENIZER)
    ids = TOKENIZER("a<|im_end|>b", add_special_tokens=False)["input_ids"]
    assert "".join(map(reader.push, ids)) + reader.end() == "ab"
