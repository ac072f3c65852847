"""What else a training picture is asked is true of it, never asked twice, and not to be guessed from its form."""

import collections

import pytest

from igva.probe import SPLITS, facts, photos, sample
from igva.probe.describe import DESCRIBE
from igva.probe.drawing import SHAPES
from igva.probe.edition import FOLLOW_UPS, NO_THING, TRAIN_CYCLE, scheduled
from igva.probe.pack import nouns
from igva.probe.scenes import COLORS, Scene, side_of
from igva.probe.suite import subject_of
from igva.probe.task_base import Dealer, Question, stream
from igva.probe.tasks import task_of

GROUPS = {"kind": facts.KINDS, "use": facts.USES, "legs": facts.LEGS, "habitat": facts.HABITATS}


@pytest.fixture(scope="module")
def asked() -> dict[str, list[tuple[Scene, Question]]]:
    """Every further question of every task about 500 training scenes."""
    found = collections.defaultdict(list)
    for index in range(500):
        task, number = scheduled(TRAIN_CYCLE, index)
        if task == NO_THING:
            continue
        draw = photos.DRAW.get(task) or task_of(task).draw
        scene, _ = draw(stream(0, "train", index, 0), SPLITS["train"], Dealer(0, "train", number))
        for other in FOLLOW_UPS:
            found[other] += [(scene, turn) for turn in task_of(other).more(scene) if not scene.alone]
    return found


def mentioned(question: str, words) -> list[str]:
    """Those of ``words`` that stand in it."""
    padded = " ".join(["", *question.replace("?", "").replace(",", "").replace(".", "").split(), ""])
    return [word for word in words if f" {word} " in padded]


def test_every_task_is_asked_about(asked) -> None:
    assert min(len(asked[task]) for task in FOLLOW_UPS) >= 3
    for task, found in asked.items():
        for _, turn in found:
            assert turn.task == task and turn.answer in turn.choices and "{" not in turn.question


@pytest.mark.parametrize("task", GROUPS)
def test_the_one_thing_belongs_there(task, asked) -> None:
    for scene, turn in asked[task]:
        (name,) = {thing.name for thing in scene.things}
        assert [group for group, members in GROUPS[task].items() if name in members] == [turn.answer]


@pytest.mark.parametrize("task", ["exists", "exists_popular", "exists_adversarial"])
def test_presence(task, asked) -> None:
    for scene, turn in asked[task]:
        here = {thing.name for thing in scene.things}
        names = mentioned(turn.question, [*nouns(), *SHAPES])
        if names and "bar" not in turn.question:
            assert (names[-1] in here) == (turn.answer == "yes"), turn
    yes = sum(turn.answer == "yes" for _, turn in asked[task])
    assert abs(yes / len(asked[task]) - 0.5) < 1.5 / len(asked[task]) ** 0.5  # three standard errors


def test_attributes(asked) -> None:
    for scene, turn in asked["attribute"]:
        (shape,), (color,) = mentioned(turn.question, SHAPES), mentioned(turn.question, COLORS)
        (thing,) = [thing for thing in scene.things if thing.name == shape]
        assert (thing.color == color) == (turn.answer == "yes")


def test_captions(asked) -> None:
    for scene, turn in asked["caption"]:
        left, right = sorted(scene.things, key=lambda thing: thing.center[0])
        assert side_of("horizontal", left, right) == "left"
        told = turn.question.split(f"{turn.answer}: ")[-1].split(";")[0].rstrip(".")
        assert told == f"{left.name} left of {right.name}" and turn.question.count(told) == 1


def test_frames(asked) -> None:
    for scene, turn in asked["refer"]:
        (color,) = mentioned(turn.question, COLORS)
        assert [thing.name for thing in scene.of_kind("object") if thing.color == color] == [turn.answer]


def test_pies_tables_and_bills(asked) -> None:
    for scene, turn in asked["pie"]:
        slices = sorted(scene.of_kind("slice"), key=lambda thing: thing.area)
        largest = "largest" in turn.question or "biggest" in turn.question
        assert slices[-1 if largest else 0].color == turn.answer
    for scene, turn in asked["table"]:
        texts = [thing.name for thing in scene.of_kind("text")]
        rows = {texts[3 + 4 * i]: texts[4 + 4 * i : 7 + 4 * i] for i in range(3)}
        (row,) = mentioned(turn.question, rows)
        (column,) = mentioned(turn.question, ("A", "B", "C"))
        assert rows[row]["ABC".index(column)] == turn.answer
    for scene, turn in asked["document"]:
        texts = [thing.name for thing in scene.of_kind("text")]
        (field,) = mentioned(turn.question, texts[::2])
        assert texts[texts.index(field) + 1] == turn.answer


def test_nothing_is_asked_twice_of_a_picture() -> None:
    turns = 0
    for index in range(200):
        made = sample("train", index)
        plain = [turn for talk in made.conversations if not talk.imagined for turn in talk.turns]
        keys = [subject_of(turn) for turn in plain if turn.task != DESCRIBE]
        assert len(set(keys)) == len(keys), made.questions
        turns += len(keys)
    assert turns > 2.5 * 200
