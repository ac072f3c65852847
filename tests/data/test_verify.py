"""Verify counts everything and stops at nothing."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from igva.data.sources import scan
from igva.data.templates import PLAIN
from igva.data.verify import verify
from igva.data.verify_plot import plot_findings
from igva.data.verify_table import summary, table
from igva.errors import UserError
from igva.testing import tiny_model, tiny_processor


@pytest.fixture(scope="module")
def processor():
    return tiny_processor(tiny_model())


def look(source, **options):
    return verify(str(source), scan(source), **options)


def lines(found):
    """The table, rows by name."""
    return {line[:32].strip(): line[32:].split() for line in table(found)}


def test_good_data_of_every_format(llava, shards):
    for source in (llava / "mixed.json", llava / "mixed.jsonl", shards):
        found = look(source)
        assert (found.samples, found.text_only, found.one_picture, found.several_pictures) == (4, 1, 1, 2)
        assert found.several_turns == 1 and found.sources == {"mixed": 3, "pairs": 1}
        assert found.pictures == found.picture_uses == 5 and found.sizes == [(40, 40)] * 5
        assert not found.broken() and not found.duplicates and not found.duplicate_ids
        assert len(found.tokens) == 4 and found.estimated


@pytest.fixture
def messy(tmp_path, picture):
    """Two of each fault but one, sixteen lines in all."""
    for name, size in {"fine": (40, 40), "tiny": (15, 40), "long": (20, 161), "edge": (16, 128)}.items():
        picture(0, *size).save(tmp_path / f"{name}.png")
    (tmp_path / "copy.png").write_bytes((tmp_path / "fine.png").read_bytes())
    (tmp_path / "half.png").write_bytes((tmp_path / "fine.png").read_bytes()[:99])
    (tmp_path / "words.jpg").write_text("no picture")
    Image.new("1", (9000, 8000)).save(tmp_path / "huge.png")

    def entry(name, image=None, text="What?", answer="A cat."):
        turns = [{"from": "human", "value": text}, {"from": "gpt", "value": answer}]
        return json.dumps({"id": name, "conversations": turns} | ({"image": image} if image else {}))

    rows = [entry(f"p{i}", f"{name}.png") for i, name in enumerate(("fine", "tiny", "long", "edge", "copy", "half"))]
    rows += [entry("words", "words.jpg"), entry("huge", "huge.png"), entry("gone", "gone.png")]
    rows += [entry("again", "fine.png"), entry("p0"), entry("p0")]
    rows += ["{oops", entry("many", ["fine.png"] * 2, "<image>"), '{"id": "none"}', '["no object"]']
    (tmp_path / "messy.jsonl").write_text("\n".join(rows))
    return tmp_path / "messy.jsonl"


def test_every_fault_is_counted_and_named(messy):
    found, folder = look(messy), messy.parent
    assert found.samples == 12 and found.text_only == 2 and found.one_picture == 10
    assert found.duplicate_ids == ["p0", "p0"]
    assert len(found.malformed) == 4
    for problem, words in zip(
        found.malformed,
        (
            "messy.jsonl, line 13: not valid JSON",
            "1 <image> placeholders but 2 images",
            "no conversations",
            "an object",
        ),
        strict=True,
    ):
        assert words in problem and "\n" not in problem
    assert (found.pictures, found.picture_uses) == (9, 10)
    assert [str(folder / "gone.png") in reason for reason in found.missing] == [True]
    assert ["half.png is damaged" in found.unreadable[0], "words.jpg is not an image" in found.unreadable[1]] == [
        True
    ] * 2
    assert len(found.unreadable) == 2 and len(found.too_large) == 1 and "9000 × 8000" in found.too_large[0]
    assert found.tiny == [str(folder / "tiny.png")] and found.long == [str(folder / "long.png")]
    assert found.duplicates == [str(folder / "copy.png")]
    assert sorted(found.sizes) == [(15, 40), (16, 128), (20, 161), (40, 40), (40, 40)]
    rows = lines(found)
    for name, count in {
        "samples": "12",
        "malformed samples": "4",
        "present": "8",
        "missing": "1",
        "unreadable": "2",
        "over 64 million pixels": "1",
        "a side under 16 pixels": "1",
        "sides beyond 8:1": "1",
        "same content as another": "1",
        "id used before": "2",
    }.items():
        assert rows[name][0] == count, name
    told = summary(found)
    assert "\n" not in told and "malformed samples: 4, missing pictures: 1, unreadable pictures: 2" in told
    assert "data.on_bad_image=skip" in told


def test_at_most_five_cases_are_printed(tmp_path):
    (tmp_path / "x.jsonl").write_text("{\n" * 9)
    printed = list(table(look(tmp_path / "x.jsonl")))
    assert "malformed samples (9)" in printed and "  … and 4 more" in printed
    assert sum("not valid JSON" in line for line in printed) == 5


def test_a_damaged_shard_is_a_case_not_the_end(shards):
    first = shards / "mixed-00.tar"
    first.write_bytes(first.read_bytes()[:9000])
    found = look(shards)
    assert len(found.malformed) == 1 and "mixed-00.tar is damaged" in found.malformed[0]
    assert found.samples >= 2  # the second shard's


def test_tokens_with_a_processor(llava, processor):
    found = look(llava / "mixed.json", processor=processor)
    assert not found.estimated and not found.broken()
    captions = look(llava / "mixed.json", processor=processor, chat_template=PLAIN)
    assert sum(captions.tokens) < sum(found.tokens)
    summary = found.token_summary()
    assert summary["least"] == min(found.tokens) and summary["all"] == sum(found.tokens)
    assert sum(count for *_, count in found.histogram()) == 4
    assert all(low <= high for low, high, _ in found.histogram())


def test_what_max_length_cuts(tmp_path, picture, processor):
    picture().save(tmp_path / "a.png")

    def entry(name, question, answer, **more):
        turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
        return {"id": name, "conversations": turns, **more}

    entries = [
        entry("short", "Hi", "Yes"),
        entry("long answer", "Hi", "yes " * 50),
        entry("long question", "hm " * 60, "Yes"),
        entry("late picture", "hm " * 60 + "<image>", "Yes", image="a.png"),
        entry("empty", "Hi", ""),
    ]
    (tmp_path / "x.json").write_text(json.dumps(entries))
    found = look(tmp_path / "x.json", processor=processor, max_length=100)
    assert found.over_length == ["long answer", "long question", "late picture"]
    assert [case.partition(":")[0] for case in found.cut_pictures] == ["sample late picture"]
    assert [case.partition(":")[0] for case in found.nothing_learnt] == ["sample long question"]
    assert found.broken().keys() == {"samples with a cut picture", "samples with nothing to learn"}
    assert lines(found)["samples over 100"] == ["3"]


def test_the_histogram_doubles():
    from igva.data.verify import Findings

    found = Findings("x", 2048, estimated=True, tokens=[0, 1, 2, 3, 4, 7, 8, 30])
    assert found.histogram() == [(0, 0, 1), (1, 1, 1), (2, 3, 2), (4, 7, 2), (8, 15, 1), (16, 31, 1)]
    assert Findings("x", 2048, estimated=True).histogram() == []
    assert list(table(Findings("x", 2048, estimated=True)))


def test_plot(messy, tmp_path, processor):
    for name, found in {"a.png": look(messy), "b.pdf": look(messy, processor=processor, max_length=30)}.items():
        plot_findings(found, tmp_path / name)
        assert (tmp_path / name).stat().st_size > 2000
    with Image.open(tmp_path / "a.png") as drawn:
        assert drawn.width > 1000
    from igva.data.verify import Findings

    plot_findings(Findings("$x_{", 2048, estimated=True), tmp_path / "empty.png")
    with pytest.raises(UserError, match="cannot be written"):
        plot_findings(look(messy), tmp_path / "none" / "a.png")
    with pytest.raises(UserError, match="cannot be written"):
        plot_findings(look(messy), tmp_path / "a.docx")
