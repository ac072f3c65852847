"""What is told of a training picture is true of it, and told of training pictures only."""

import re

import pytest

from igva.probe import SPLITS, describe, sample
from igva.probe.dealer import Dealer, stream
from igva.probe.facts import FLAGS
from igva.probe.pack import nouns, photo_nouns
from igva.probe.questions import Question
from igva.probe.scenes import Scene
from igva.probe.suite import DRAW, MOST_TOLD, NO_THING, scheduled
from igva.probe.vocabulary import COLORS, DESCRIBE, TASKS, TEMPLATES


@pytest.fixture(scope="module")
def told() -> list[tuple[Scene, Question, Question]]:
    """Scene, first question and every description of 600 training pictures."""
    found = []
    for index in range(600):
        task, number = scheduled("train", index)
        if task == NO_THING:
            continue
        scene, first = DRAW[task](stream(0, "train", index, 0), SPLITS["train"], Dealer(0, "train", number))
        found += [(scene, first, turn) for turn in describe.descriptions(scene, first)]
    return found


def wording(turn: Question, key: str) -> re.Match[str] | None:
    """Whether a question is put in one of the ways of a kind, and with which words."""
    ways = (re.sub(r"\\{(\w+)\\}", r"(?P<\1>.+)", re.escape(way)) for way in TEMPLATES[key])
    return next((found for way in ways if (found := re.fullmatch(way, turn.question))), None)


def of(told, key):
    found = [(scene, first, turn.answer) for scene, first, turn in told if wording(turn, key)]
    assert len(found) >= 5, key
    return found


def test_only_training_pictures_are_described() -> None:
    assert DESCRIBE not in TASKS
    for split in SPLITS:
        tasks = {talk.task for index in range(60) for talk in sample(split, index).conversations}
        assert (DESCRIBE in tasks) == SPLITS[split].conversations


def test_the_pictures_and_first_questions_need_no_description() -> None:
    # A described picture is drawn before, and asked about, as if nothing were told of it.
    talks = sample("train", 3).conversations
    assert talks[-1].task == DESCRIBE and not talks[-1].suffix and 1 <= len(talks[-1].turns) <= MOST_TOLD
    assert talks[0].task == scheduled("train", 3)[0]


def test_everything_is_told_where_it_is(told) -> None:
    placed = 0
    for scene, first, answer in of(told, "describe"):
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
    counts = {"where_is": 0, "what_is_at": 0}
    for scene, _, turn in told:
        for key in counts:
            if not (words := wording(turn, key)):
                continue
            name, place = (words["x"], turn.answer) if key == "where_is" else (turn.answer, words["place"])
            (thing,) = [thing for thing in scene.things if thing.name == name]
            assert describe.where(thing) == place
            if key == "what_is_at":
                assert [describe.where(thing) for thing in scene.things].count(place) == 1
            counts[key] += 1
    assert min(counts.values()) > 50


def test_words_are_spelled(told) -> None:
    for scene, first, answer in of(told, "spell"):
        assert answer.replace(" ", "") == first.answer == scene.of_kind("word")[0].name


def test_orders(told) -> None:
    for key, value in (
        ("from_left", lambda thing: thing.center[0]),
        ("from_top", lambda thing: thing.center[1]),
        ("from_largest", lambda thing: -thing.area),
    ):
        for scene, _, answer in of(told, key):
            at = {thing.name: value(thing) for thing in scene.things}
            names = answer.split(", ")
            assert sorted(names) == sorted(at) and names == sorted(names, key=at.__getitem__)


def test_charts_and_flags(told) -> None:
    for scene, _, answer in of(told, "bars"):
        assert answer.split(", ") == [bar.color for bar in sorted(scene.of_kind("bar"), key=lambda bar: bar.box[0])]
    for scene, first, answer in of(told, "tallest_first"):
        heights = {bar.color: bar.value for bar in scene.of_kind("bar")}
        assert [heights[color] for color in answer.split(", ")] == sorted(heights.values(), reverse=True)
        assert first.answer in (answer.split(", ")[0], answer.split(", ")[-1])
    for _, first, answer in of(told, "slices"):
        assert first.answer in (answer.split(", ")[0], answer.split(", ")[-1])
    for _, first, answer in of(told, "flag_look"):
        assert all(color in answer for color in FLAGS[first.answer][1:])


def test_all_that_is_written_is_read(told) -> None:
    for _, first, answer in of(told, "read_table"):
        row, column = re.search(
            r"(north|south|east|west).* ([ABC])\b|([ABC])\b.*(north|south|east|west)", first.question
        ).group(1, 2)
        lines = {line.split()[0]: line.split()[1:] for line in answer.split(", ")}
        assert lines[row]["ABC".index(column)] == first.answer
    for _, first, answer in of(told, "read_bill"):
        lines = dict(line.split() for line in answer.split(", "))
        (field,) = [field for field in lines if re.search(rf"\b{field}\b", first.question)]
        assert lines[field] == first.answer
