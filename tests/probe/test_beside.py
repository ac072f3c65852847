"""Four questions on one kind of picture: nothing but the question tells what is needed."""

import collections

import pytest

from igva.probe import SPLITS, sample
from igva.probe.edition import FOLLOW_UPS, PUBLISHED
from igva.probe.task_base import Dealer, stream
from igva.probe.tasks import task_of

TASKS = ("thing_beside", "pattern_beside", "word_beside", "dot_beside")
KINDS = {"thing_beside": "object", "word_beside": "word", "dot_beside": "dot", "pattern_beside": "pattern"}


def scene_of(task, split, number):
    return task_of(task).draw(stream(0, split, task, number, 0), SPLITS[split], Dealer(0, split, number))


@pytest.mark.parametrize("split", ["train", "val", "test", "unseen"])
@pytest.mark.parametrize("task", TASKS)
def test_each_picture_holds_all_four_and_the_answer(task, split):
    for number in range(12):
        scene, question = scene_of(task, split, number)
        kinds = [thing.kind for thing in scene.things]
        assert sorted(kinds) == ["dot", "object", "pattern", "word"]
        (asked,) = scene.of_kind(KINDS[task])
        assert question.answer in question.choices
        if task in ("thing_beside", "word_beside"):
            assert question.answer == asked.name
        if task == "dot_beside":
            assert question.answer == asked.color != scene.background
        (shape,) = scene.of_kind("pattern")
        assert shape.name in question.question or "small" in question.question
        for one in scene.things:
            for other in scene.things:
                apart = one.box[2] <= other.box[0] or one.box[3] <= other.box[1]
                assert one is other or apart or other.box[2] <= one.box[0] or other.box[3] <= one.box[1]
        (word,) = scene.of_kind("word")
        assert word.sides[0] < 100 and word.sides[1] < 90  # it keeps to its quarter


def test_answers_come_equally_often():
    answers = collections.Counter(scene_of("pattern_beside", "val", number)[1].answer for number in range(50))
    assert set(answers.values()) == {10}


def test_training_pictures_are_asked_all_four():
    for index in range(8):
        made = sample("train", index, tasks=TASKS)
        assert [talk.task for talk in made.conversations] == [TASKS[index % 4]]
        turns = made.questions
        assert turns[0].task == TASKS[index % 4]
        assert {turn.task for turn in turns} == set(TASKS) or len({turn.answer for turn in turns}) < 4
        scene, question = scene_of(TASKS[index % 4], "train", index // 4)
        told = {turn.task: turn.answer for turn in turns}
        assert told[question.task] == question.answer
        for task, kind in KINDS.items():
            (thing,) = scene.of_kind(kind)
            if task in told and task != "pattern_beside":
                assert told[task] == (thing.color if task == "dot_beside" else thing.name)
    assert len(sample("test", 0, tasks=TASKS).questions) == 1


def test_they_stand_in_no_published_split():
    assert not {*TASKS} & {*FOLLOW_UPS, *(name for names in PUBLISHED.values() for name in names)}
