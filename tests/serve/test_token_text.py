"""Text from tokens: whole characters, nothing beyond a stop string."""

from __future__ import annotations

import random

import pytest

from igva.serve.token_text import TokenText, token_bytes
from igva.testing import STAND_INS, stand_in_tokenizer, tiny_tokenizer

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


@pytest.mark.parametrize("kind", STAND_INS)
def test_pieces_joined_are_the_decoded_answer(kind):
    """Any tokens at all: half characters, runs of bytes that are none, special tokens in between."""
    tokenizer, rng = stand_in_tokenizer(kind), random.Random(0)
    some = [i for i in range(len(tokenizer)) if tokenizer.convert_ids_to_tokens(i).startswith("<0x")]
    for _ in range(600):
        ids = [
            rng.choice(some) if some and rng.random() < 0.4 else rng.randrange(len(tokenizer))
            for _ in range(rng.randint(1, 40))
        ]
        reader = TokenText(tokenizer)
        parts = [*map(reader.push, ids), reader.end()]
        assert "".join(parts) == tokenizer.decode(ids, skip_special_tokens=True), ids


def test_a_run_of_bytes_is_given_once_it_is_complete():
    tokenizer = stand_in_tokenizer("vicuna")
    cat = tokenizer("a cat", add_special_tokens=False)["input_ids"]
    bytes_of = {text: tokenizer.convert_tokens_to_ids([f"<0x{b:02X}>" for b in text.encode()]) for text in "🐱\n"}
    reader = TokenText(tokenizer)
    parts = [*map(reader.push, cat), *map(reader.push, bytes_of["🐱"] + bytes_of["\n"]), *map(reader.push, cat)]
    assert parts[: len(cat)] != [""] * len(cat), "words come as they are"
    assert "".join(parts) + reader.end() == "a cat🐱\n a cat"


@pytest.mark.parametrize("kind", STAND_INS)
def test_bytes_of_a_token_are_its_own(kind):
    tokenizer = stand_in_tokenizer(kind)
    ids = tokenizer("🦆 ü", add_special_tokens=False)["input_ids"]
    assert b"".join(token_bytes(tokenizer, token) for token in ids).strip() == "🦆 ü".encode()
