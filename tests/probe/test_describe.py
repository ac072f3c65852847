"""What is told of a training picture is true of it, and told of training pictures only."""

import re

import pytest

from igva.probe import SPLITS, describe, photos, sample, suite, task_charts, task_knowledge, task_names
from igva.probe.describe import DESCRIBE
from igva.probe.edition import NO_THING, TRAIN_CYCLE, scheduled
from igva.probe.facts import FLAGS
from igva.probe.pack import nouns, photo_nouns
from igva.probe.scenes import COLORS, Scene
from igva.probe.task_base import Dealer, Question, stream
from igva.probe.tasks import task_of


@pytest.fixture(scope="module")
def told() -> list[tuple[Scene, Question, Question]]:
    """Scene, first question and every description of 600 training pictures."""
    found = []
    for index in range(600):
        task, number = scheduled(TRAIN_CYCLE, index)
        if task == NO_THING:
            continue
        draw = photos.DRAW.get(task) or task_of(task).draw
        scene, first = draw(stream(0, "train", index, 0), SPLITS["train"], Dealer(0, "train", number))
        found += [(scene, first, turn) for turn in suite._descriptions(scene, first)]
    return found


def wording(turn: Question, wordings: tuple[str, ...]) -> re.Match[str] | None:
    """Whether a question is put in one of the ways of a kind, and with which words."""
    ways = (re.sub(r"\\{(\w+)\\}", r"(?P<\1>.+)", re.escape(way)) for way in wordings)
    return next((found for way in ways if (found := re.fullmatch(way, turn.question))), None)


def of(told, wordings):
    found = [(scene, first, turn.answer) for scene, first, turn in told if wording(turn, wordings)]
    assert len(found) >= 5, wordings
    return found


def test_only_training_pictures_are_described() -> None:
    assert DESCRIBE not in task_names()
    for split in SPLITS:
        tasks = {talk.task for index in range(60) for talk in sample(split, index).conversations}
        assert (DESCRIBE in tasks) == SPLITS[split].conversations


def test_the_pictures_and_first_questions_need_no_description() -> None:
    # A described picture is drawn before, and asked about, as if nothing were told of it.
    talks = sample("train", 3).conversations
    assert talks[-1].task == DESCRIBE and not talks[-1].suffix and 1 <= len(talks[-1].turns) <= suite.MOST_DESCRIPTIONS
    assert talks[0].task == scheduled(TRAIN_CYCLE, 3)[0]


def test_everything_is_told_where_it_is(told) -> None:
    placed = 0
    for scene, first, answer in of(told, describe.THINGS_WORDINGS):
        if first.task == "depth":
            back, front = (thing.name for thing in scene.things)
            assert re.search(rf"\b{front} in front of .*\b{back}$", answer)
            continue
        *parts, background = answer.split(", on ")
        if scene.background in COLORS:
            assert background.endswith(f" {scene.background} background")
        elif scene.photographed:
            assert background == "a photographed background"
        else:
            parts = [*parts, background]  # nothing is told of it
        for part in ", on ".join(parts).split(", "):
            if " at the " not in part:
                number, plural = part.split(" ", 1)
                known = {**nouns(), **photo_nouns()}
                names = [
                    t.name
                    for t in scene.things
                    if plural in (t.name, f"{t.name}s", known[t.name].plural if t.name in known else "")
                ]
                assert len(names) == int(number)
                continue
            called, place = part.split(" at the ")
            (thing,) = [t for t in scene.things if called.endswith(t.name) or f" {t.name} in a" in f" {called}"]
            x, y = thing.center
            assert ("left" in place, "right" in place) == (x < 224 / 3, x >= 2 * 224 / 3), (answer, thing)
            assert ("top" in place, "bottom" in place) == (y < 224 / 3, y >= 2 * 224 / 3), (answer, thing)
            placed += 1
        assert answer.count(" at the ") in (0, len(scene.things))
    assert placed > 100


def test_one_thing_and_its_place(told) -> None:
    counts = {describe.WHERE_IS_WORDINGS: 0, describe.WHAT_IS_AT_WORDINGS: 0}
    for scene, _, turn in told:
        for key in counts:
            if not (words := wording(turn, key)):
                continue
            asked_where = key == describe.WHERE_IS_WORDINGS
            name, place = (words["x"], turn.answer) if asked_where else (turn.answer, words["place"])
            (thing,) = [thing for thing in scene.things if thing.name == name]
            assert describe.where(thing) == place
            if not asked_where:
                assert [describe.where(thing) for thing in scene.things].count(place) == 1
            counts[key] += 1
    assert min(counts.values()) > 50


def test_words_are_spelled(told) -> None:
    for scene, first, answer in of(told, describe.SPELL_WORDINGS):
        assert answer.replace(" ", "") == first.answer == scene.of_kind("word")[0].name


def test_orders(told) -> None:
    for key, value in (
        (describe.FROM_LEFT_WORDINGS, lambda thing: thing.center[0]),
        (describe.FROM_TOP_WORDINGS, lambda thing: thing.center[1]),
        (describe.FROM_LARGEST_WORDINGS, lambda thing: -thing.area),
    ):
        for scene, _, answer in of(told, key):
            at = {thing.name: value(thing) for thing in scene.things}
            names = answer.split(", ")
            assert sorted(names) == sorted(at) and names == sorted(names, key=at.__getitem__)


def test_charts_and_flags(told) -> None:
    for scene, _, answer in of(told, task_charts.BARS_WORDINGS):
        assert answer.split(", ") == [bar.color for bar in sorted(scene.of_kind("bar"), key=lambda bar: bar.box[0])]
    for scene, first, answer in of(told, task_charts.TALLEST_FIRST_WORDINGS):
        heights = {bar.color: bar.value for bar in scene.of_kind("bar")}
        assert [heights[color] for color in answer.split(", ")] == sorted(heights.values(), reverse=True)
        assert first.answer in (answer.split(", ")[0], answer.split(", ")[-1])
    for _, first, answer in of(told, task_charts.SLICES_WORDINGS):
        assert first.answer in (answer.split(", ")[0], answer.split(", ")[-1])
    for _, first, answer in of(told, task_knowledge.FLAG_LOOK_WORDINGS):
        assert all(color in answer for color in FLAGS[first.answer][1:])


def test_all_that_is_written_is_read(told) -> None:
    for _, first, answer in of(told, task_charts.TABLE_WORDINGS):
        row, column = re.search(
            r"(north|south|east|west).* ([ABC])\b|([ABC])\b.*(north|south|east|west)", first.question
        ).group(1, 2)
        lines = {line.split()[0]: line.split()[1:] for line in answer.split(", ")}
        assert lines[row]["ABC".index(column)] == first.answer
    for _, first, answer in of(told, task_charts.BILL_WORDINGS):
        lines = dict(line.split() for line in answer.split(", "))
        (field,) = [field for field in lines if re.search(rf"\b{field}\b", first.question)]
        assert lines[field] == first.answer
