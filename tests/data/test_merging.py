"""Conversations about one picture as one sample: nothing is lost, repeated or mixed up."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from igva.data.merging import merge_by_picture
from igva.data.records import Record, record_from


def record(name, picture, turns=1, source="a", value="<image>\nwhat {n}?"):
    images = [] if picture is None else [Path(picture)]
    chat = []
    for number in range(turns):
        text = value.format(n=f"{name}{number}") if number == 0 and images else f"what {name}{number}?"
        chat += [{"from": "human", "value": text}, {"from": "gpt", "value": f"{name}{number}!"}]
    entry = {"id": name, "conversations": chat, "choices": ["x"]}
    return record_from(entry, images, where="here", name=name, source=source)


def pairs(records: list[Record]) -> Counter:
    """(picture, question, answer) of every turn."""
    found = Counter()
    for one in records:
        assert [m["role"] for m in one.chat] == ["user", "assistant"] * (len(one.chat) // 2)
        texts = [" ".join(i["text"] for i in m["content"] if i["type"] == "text") for m in one.chat]
        found.update(zip([one.images] * len(texts), texts[::2], texts[1::2], strict=False))
        pictures = [[i["type"] for i in m["content"]].count("image") for m in one.chat]
        assert pictures == [len(one.images)] + [0] * (len(pictures) - 1)  # at the very start
    return found


def test_every_turn_once():
    records = [record(f"q{i}", f"{i % 3}.png", 1 + i % 2) for i in range(9)] + [record("t", None)]
    merged = merge_by_picture(records, 100)
    assert pairs(merged) == pairs(records)
    assert [one.images and one.images[0].name for one in merged] == ["0.png", "1.png", "2.png", ()]
    assert not any("choices" in one.extra for one in merged[:3]) and merged[3] == records[-1]


@pytest.mark.parametrize("most", [1, 2, 3, 5])
def test_most_turns(most):
    records = [record(f"q{i}", "0.png", 2 if i == 3 else 1) for i in range(7)]
    merged = merge_by_picture(records, most)
    assert pairs(merged) == pairs(records)
    assert max(len(one.chat) // 2 for one in merged) <= max(2, most)  # the one of two turns is not cut
    assert len(merged) <= {1: 7, 2: 5, 3: 4, 5: 2}[most]


def test_the_order_is_the_seeds():
    records = [record(f"q{i}", "0.png") for i in range(8)]
    (one,), (two,), (other,) = (merge_by_picture(records, 8, seed) for seed in (0, 0, 1))
    assert one == two != other
    assert one.chat != [m for r in records for m in r.chat]


def test_sources():
    one, two = merge_by_picture([record("a", "0.png"), record("b", "0.png"), record("c", "1.png"),
                                 record("d", "1.png", source="b")], 9)  # fmt: skip
    assert (one.source, two.source) == ("a", "merged")


def test_what_stays_as_it_is():
    late = record("late", "0.png")
    late.chat[0]["content"], late.chat[0:0] = late.chat[0]["content"][1:], []
    late.chat.extend([{"role": "user", "content": [{"type": "image", "image": None}]}, late.chat[1]])
    system = record("system", "0.png")
    system.chat.insert(0, {"role": "system", "content": [{"type": "text", "text": "Be brief."}]})
    two = Record("two", record("x", "0.png").chat, (Path("0.png"), Path("1.png")), "a")
    odd = [late, system, two, record("text", None), record("text2", None)]
    assert merge_by_picture([*odd, record("p", "0.png"), record("q", "0.png")], 9)[:5] == odd


def test_what_is_imagined_stays_apart():
    """Two talks on the same imagined class are one sample that still says so; other classes and none are others."""
    imagined = [None, {"class": 1}, {"class": 2}, {"class": 1}, None, {"class": 1, "share": 0.5}]
    records = [record(f"q{i}", "0.png") for i in range(6)]
    for one, extra in zip(records, imagined, strict=True):
        one.extra.update({} if extra is None else {"imagined": extra})
    merged = merge_by_picture(records, 9)
    assert [(one.extra.get("imagined"), len(one.chat) // 2) for one in merged] == [
        (None, 2),
        ({"class": 1}, 2),
        ({"class": 2}, 1),
        ({"class": 1, "share": 0.5}, 1),
    ]
