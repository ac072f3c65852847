"""A task that is added is drawn, listed and checked by its name, and changes nothing of what is published."""

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from igva.cli import main as cli
from igva.data.questions import read_questions
from igva.errors import UserError
from igva.probe import Question, Task, build, categories, category_of, register_task, sample, scenes, sheet, tasks
from igva.probe.edition import FOLLOW_UPS, SPLITS
from igva.probe.suite import subject_of

CODE = re.search(r"```python\n(import random.*?)```", (Path(__file__).parents[2] / "docs/probe.md").read_text(), re.S)
space: dict = {}
exec(compile(CODE.group(1), "docs/probe.md", "exec"), space)  # the page's example, word for word


def more_corner(scene: scenes.Scene) -> list[Question]:
    """Always willing, drawing from the scene's stream, and speaking of things: nothing published may ask it."""
    return [Question("corner", "Which corner is the mug in?", scene.rng.choice(space["CORNERS"]), space["CORNERS"])]


CORNER = replace(space["CORNER"], more=more_corner)


def digest(split: str, count: int, **arguments) -> str:
    """Of pictures, cells and all that is asked."""
    found = hashlib.sha256()
    for index in range(count):
        one = sample(split, index, 5, **arguments)
        found.update(one.image.tobytes())
        found.update(repr((one.cells, one.conversations, one.photo_cells)).encode())
    return found.hexdigest()


@pytest.fixture
def corner(monkeypatch: pytest.MonkeyPatch) -> None:
    """The task is registered for one test."""
    monkeypatch.setattr(tasks, "_TASKS", dict(tasks._TASKS))
    register_task(CORNER)


@pytest.mark.parametrize(("split", "count"), [("test", 30), ("unseen", 6), ("val", 10), ("train", 15)])
def test_no_published_picture_or_question_changes(split: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    before = digest(split, count)
    monkeypatch.setattr(tasks, "_TASKS", {CORNER.name: CORNER, **tasks._TASKS})  # first of all: no order may matter
    assert digest(split, count) == before
    assert "corner" not in FOLLOW_UPS


@pytest.mark.parametrize("split", SPLITS)
def test_it_is_drawn_when_it_is_asked_for(split: str, corner) -> None:
    drawn = [sample(split, index, tasks=("corner",)) for index in range(8)]
    firsts = [one.conversations[0] for one in drawn]
    assert {talk.task for talk in firsts} == {"corner"}
    assert sorted(talk.turns[0].answer for talk in firsts) == sorted(space["CORNERS"] * 2)  # dealt
    for one in drawn:
        keys = [subject_of(turn) for turn in one.questions if turn.choices]
        assert len(set(keys)) == len(keys)
    assert len({one.image.tobytes() for one in drawn}) == 8


def test_pictures_by_name_depend_on_no_other_task(corner) -> None:
    alone = [sample("test", index, tasks=("corner",)).image.tobytes() for index in range(2)]
    beside = [sample("test", index, tasks=("name", "corner")).image.tobytes() for index in (1, 3)]
    assert alone == beside
    # A published task's are the split's own: "name" is the first of the cycle.
    assert sample("test", 0, tasks=("name",)).image.tobytes() == sample("test", 0).image.tobytes()
    assert digest("val", 2, tasks=("name",)) != digest("test", 2, tasks=("name",))


def test_it_stands_in_every_list(corner, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(cli, "VERBS", ("probe",))
    assert categories()["Vision-Centric"][-1] == "corner" and category_of("corner") == "Vision-Centric"
    assert cli.entry(["probe", "tasks"]) == 0
    listed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["Vision-Centric", "corner", "by", "name", "only"] in listed and len(listed) == 34
    for split, count in (("train", "12"), ("test", "8")):
        where = ["--split", split, "--count", count, "--out", str(tmp_path / split)]
        assert cli.entry(["probe", "build", *where, "--tasks", "corner, turn"]) == 0
    questions = read_questions(tmp_path / "test/questions.json")  # what igva eval reads
    assert {(q.task, q.category) for q in questions} == {("corner", "Vision-Centric"), ("turn", "Vision-Centric")}
    assert [entry["id"] for entry in json.loads((tmp_path / "test/questions.json").read_text())][:3] == [
        *("test-corner-000000", "test-turn-000000", "test-corner-000001")
    ]
    capsys.readouterr()
    files = ["--train", str(tmp_path / "train/data.json"), "--test", str(tmp_path / "test/questions.json")]
    assert cli.entry(["probe", "check", *files]) in (0, 1)
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["task", "corner", "turn"]


def test_it_stands_on_the_sheet(corner) -> None:
    titles = dict(sheet._examples("test", 0, 0))
    assert titles["Vision-Centric: corner"].questions[0].task == "corner"


def test_what_cannot_be_registered_or_drawn(corner, tmp_path: Path) -> None:
    for name in ("corner", "name", "photo", "describe"):
        with pytest.raises(ValueError, match=f"the name '{name}' is taken"):
            register_task(Task(name, "General", CORNER.draw))
    with pytest.raises(ValueError, match="there is no category 'Corners': General, Knowledge"):
        register_task(Task("edge", "Corners", CORNER.draw))
    for name in ("edge", "photo"):
        with pytest.raises(UserError, match=f"there is no task '{name}': choose from name, scene"):
            sample("test", 0, tasks=(name,))
        with pytest.raises(UserError, match=f"there is no task '{name}'"):
            build("test", tmp_path / "new", 1, tasks=(name,))
    assert not (tmp_path / "new").exists()


def test_tasks_of_installed_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    class Entry:
        name = "corner"

        def load(self) -> Task:
            return CORNER

    monkeypatch.setattr(tasks, "_TASKS", dict(tasks._TASKS))
    monkeypatch.setattr(tasks, "entry_points", lambda group: [Entry()] if group == "igva.probe_tasks" else [])
    assert sample("test", 0, tasks=("corner",)).questions[0].task == "corner"
    assert "corner" in tasks.task_names()
