"""Many questions in a file: order, failures, going on."""

from __future__ import annotations

import json
import os

import pytest
from PIL import Image

from igva.answering import answer
from igva.errors import UserError
from igva.serve.batch_file import LocalAnswerer, read_lines, run_batch

from .conftest import noise

SETTINGS = {"model": "small"}


@pytest.fixture
def job(tmp_path):
    """Ten lines; the fourth has no picture, the sixth a broken one, the eighth is not JSON."""
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(noise(number))
    (tmp_path / "broken.png").write_bytes(noise()[:50])
    lines = [{"id": f"q{i}", "image": f"{i % 3}.png", "question": f"What is number {i}?"} for i in range(10)]
    lines[3]["image"] = []
    lines[5]["image"] = "broken.png"
    del lines[8]["id"]
    lines[9]["image"] = ["0.png", "1.png"]
    texts = [json.dumps(line) for line in lines]
    texts[7] = "not json"
    source = tmp_path / "in.jsonl"
    source.write_text("\n".join(texts) + "\n")
    return source


def entries(out):
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_answers_in_order_and_failures_counted(job, small, tmp_path):
    out = tmp_path / "out.jsonl"
    outcome = run_batch(job, out, SETTINGS, LocalAnswerer(*small, batch_size=4, max_new_tokens=6))
    assert (outcome.answered, outcome.failed) == (8, 2)
    found = entries(out)
    assert [entry["id"] for entry in found] == ["q0", "q1", "q2", "q3", "q4", "q5", "q6", "8", "9", "q9"]
    assert "broken.png" in found[5]["error"] and "line 8 is not JSON" in found[7]["error"]
    pictures = [Image.open(tmp_path / f"{number}.png") for number in range(3)]
    for number in (0, 4, 6):
        expected = answer(*small, pictures[number % 3], f"What is number {number}?", max_new_tokens=6)
        assert found[number]["answer"] == expected.answer
    assert found[9]["answer"] == answer(*small, pictures[:2], "What is number 9?", max_new_tokens=6).answer


class Dies(Exception):
    pass


@pytest.mark.parametrize("after", [0, 1, 5, 9])
def test_a_stopped_run_goes_on(after, job, small, tmp_path):
    whole = tmp_path / "whole.jsonl"
    run_batch(job, whole, SETTINGS, LocalAnswerer(*small, batch_size=1, max_new_tokens=6))
    asked: list[str] = []

    class Stops(LocalAnswerer):
        left = after

        def answer(self, lines):
            if not self.left:
                raise Dies
            self.left -= 1
            asked.extend(line.id for line in lines)
            return super().answer(lines)

    out = tmp_path / "out.jsonl"
    if after < 9:
        with pytest.raises(Dies):
            run_batch(job, out, SETTINGS, Stops(*small, batch_size=1, max_new_tokens=6))
    with out.open("ab") as sink:
        sink.write(b'{"id": "q')  # killed in the middle of a line
    answerer = Stops(*small, batch_size=1, max_new_tokens=6)
    answerer.left = 99
    if not (tmp_path / "out.jsonl.settings.json").exists():
        out.unlink()
    run_batch(job, out, SETTINGS, answerer)
    assert out.read_bytes() == whole.read_bytes()
    assert len(asked) == len(set(asked)) == 9  # nothing was asked twice
    before = out.read_bytes()
    run_batch(job, out, SETTINGS, answerer)  # complete: nothing is asked
    assert out.read_bytes() == before and len(asked) == 9


def test_what_failed_is_asked_again_if_wanted(job, small, tmp_path):
    out = tmp_path / "out.jsonl"
    answerer = LocalAnswerer(*small, batch_size=4, max_new_tokens=6)
    run_batch(job, out, SETTINGS, answerer)
    before = entries(out)
    job.parent.joinpath("broken.png").write_bytes(noise())
    assert run_batch(job, out, SETTINGS, answerer).failed == 2
    outcome = run_batch(job, out, SETTINGS, answerer, retry=True)
    assert outcome.failed == 1
    after = entries(out)
    assert "answer" in after[5] and [a for i, a in enumerate(after) if i != 5] == [
        b for i, b in enumerate(before) if i != 5
    ]


def test_another_input_or_other_settings(job, small, tmp_path):
    out = tmp_path / "out.jsonl"
    answerer = LocalAnswerer(*small, batch_size=4, max_new_tokens=2)
    run_batch(job, out, SETTINGS, answerer)
    with pytest.raises(UserError, match="was made with model 'small', now it is 'other'"):
        run_batch(job, out, {"model": "other"}, answerer)
    job.write_text('{"question": "?"}\n')
    with pytest.raises(UserError, match="was made with input"):
        run_batch(job, out, SETTINGS, answerer)
    theirs = tmp_path / "theirs.jsonl"
    theirs.write_text("precious\n")
    with pytest.raises(UserError, match="unknown settings"):
        run_batch(job, theirs, SETTINGS, answerer)
    assert theirs.read_text() == "precious\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[]", "not an object"),
        ("{}", "no question"),
        ('{"question": "?", "image": 3}', "a path or a list of paths"),
        ('{"question": "hi \\ud83d"}', "half a character"),
        ('{"id": "\\udc00", "question": "hi"}', "half a character"),
        ("[" * 100_000, "nested too deeply"),
    ],
    ids=["list", "empty", "number", "question", "id", "brackets"],
)
def test_lines_that_cannot_be_asked(text, told, tmp_path):
    file = tmp_path / "in.jsonl"
    file.write_text(f"\n{text}\n")
    (line,) = read_lines(file)
    assert told in line.error and line.id == "2"


def test_a_line_without_an_end_fails_and_ends_the_input(tmp_path):
    """What is no file, or a hole in one, is not read for ever."""
    source = tmp_path / "in.jsonl"
    source.write_text('{"question": "What?"}\n')
    os.truncate(source, 2**36)
    first, hole = read_lines(source)
    assert first.error is None and "line 2: longer than 16 MB" in hole.error
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(UserError, match="no regular file"):
        run_batch(tmp_path / "pipe.jsonl", tmp_path / "out.jsonl", SETTINGS, None)


def test_two_at_once_do_not_mix(job, small, tmp_path):
    out = tmp_path / "out.jsonl"

    def meanwhile(lines):
        with pytest.raises(UserError, match="another igva batch is writing"):
            run_batch(job, out, SETTINGS, lambda _: iter(()))
        return ((line.question, None) for line in lines)

    run_batch(job, out, SETTINGS, meanwhile)
    assert out.read_text().count("\n") == len(job.read_text().split("\n")) - 1
    run_batch(job, out, SETTINGS, lambda _: iter(()))  # the place is free again


@pytest.mark.slow
def test_ray_says_the_same(job, small, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    from igva.serve.batch_ray import RayAnswerer

    model, processor = small
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    local, spread = tmp_path / "local.jsonl", tmp_path / "ray.jsonl"
    run_batch(job, local, SETTINGS, LocalAnswerer(*small, batch_size=3, max_new_tokens=6))
    answerer = RayAnswerer(str(tmp_path / "model"), 3, 6, workers=1, dtype=None, address="local")
    outcome = run_batch(job, spread, SETTINGS, answerer)
    assert spread.read_bytes() == local.read_bytes() and outcome.failed == 2
