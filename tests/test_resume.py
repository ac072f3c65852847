"""Work that was stopped goes on, and never with other settings."""

import json

import pytest

from igva.errors import UserError
from igva.resume import Journal, claim


def test_what_was_begun_otherwise_is_refused(tmp_path):
    file, results = tmp_path / "settings.json", tmp_path / "results.jsonl"
    claim(file, {"model": "a", "batch": 1}, results)
    claim(file, {"model": "b", "batch": 1}, results)  # nothing has been made yet
    results.write_text("{}\n")
    claim(file, {"model": "b", "batch": 2}, results, binding=["model"])
    assert json.loads(file.read_text()) == {"model": "b", "batch": 2}
    for settings, told in (
        ({"model": "a", "batch": 2}, "model 'b', now it is 'a'"),
        ({"seed": 1}, "seed None, now it is 1"),
    ):
        with pytest.raises(UserError, match=f"was made with {told}: name another output"):
            claim(file, settings, results)
    assert json.loads(file.read_text()) == {"model": "b", "batch": 2}
    for damaged in ("", "{", "[1]", "{}", "[" * 10**5):
        file.write_text(damaged)
        with pytest.raises(UserError, match="unknown settings"):
            claim(file, {"model": "b"}, results)
    file.unlink()
    with pytest.raises(UserError, match="unknown settings"):
        claim(file, {"model": "b"}, results)


def test_the_settings_may_lie_among_the_results(tmp_path):
    file = tmp_path / "settings.json"
    claim(file, {"seeds": (1, 2)}, tmp_path)
    claim(file, {"seeds": (3, 4)}, tmp_path)
    (tmp_path / ".settings.json.part").write_text("half")
    claim(file, {"seeds": (1, 2)}, tmp_path)  # what a killed process left is no result
    claim(file, {"seeds": (3, 4)}, tmp_path)
    (tmp_path / "one.json").write_text("{}")
    claim(file, {"seeds": (3, 4)}, tmp_path)  # a tuple is a list once it is written
    with pytest.raises(UserError, match="seeds"):
        claim(file, {"seeds": (1, 2)}, tmp_path)
    file.write_text("{")
    with pytest.raises(UserError, match="unknown settings"):
        claim(file, {"seeds": (3, 4)}, tmp_path)
    file.unlink()
    claim(file, {"seeds": (1, 2)}, tmp_path)  # a log, or notes: nobody said that this is a study's


def test_a_journal_goes_on_behind_its_last_whole_line(tmp_path):
    journal = Journal(tmp_path / "answers.jsonl")
    assert list(journal.entries()) == []
    with journal.adding() as add:
        add({"id": 1, "answer": "château"})
        assert list(journal.entries()) == [{"id": 1, "answer": "château"}]  # before the end
        add({"id": 2})
    with journal.file.open("ab") as stream:
        stream.write('{"id": 3, "answer": "ch\u00e2'.encode()[:-1])
    assert [entry["id"] for entry in journal.entries()] == [1, 2]
    with journal.adding() as add:
        add({"id": 4})
    assert [entry["id"] for entry in journal.entries()] == [1, 2, 4]
    journal.file.write_bytes(b'{"id": 1}\n\xff{\n[]\n{"id": 2}\n')
    assert list(journal.entries()) == [{"id": 1}, {}, {}, {"id": 2}]
    journal.replace([{"id": 5}])
    assert journal.file.read_text() == '{"id": 5}\n' and list(tmp_path.iterdir()) == [journal.file]


def test_names_that_are_no_utf8_are_written_all_the_same(tmp_path):
    file = tmp_path / "settings.json"
    settings = {"model": "caf\udce9", "name": "é"}  # what Python makes of a byte that is no UTF-8
    claim(file, settings, tmp_path / "results.jsonl")
    assert json.loads(file.read_text()) == settings
    claim(file, {"name": "é"}, tmp_path / "results.jsonl")
    assert "é" in file.read_text()
