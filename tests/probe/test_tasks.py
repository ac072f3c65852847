"""Every task of the six categories: in right numbers, balanced, and true to what is drawn."""

import collections
from pathlib import Path

import numpy as np
import pytest

from igva.probe import SPLITS, ProbeSample, category_of, facts, sample
from igva.probe.edition import EVAL_CYCLE, PUBLISHED, index_of, scheduled
from igva.probe.pack import nouns
from igva.probe.scenes import COLORS, SIZE, Scene, side_of
from igva.probe.task_base import Dealer, stream
from igva.probe.task_vision import lopsided
from igva.probe.tasks import task_of

TASKS = [name for names in PUBLISHED.values() for name in names]


def scenes_of(task: str, count: int, split: str = "test") -> list[tuple[Scene, ProbeSample]]:
    """Scenes as drawn, with the samples made of them."""
    out = []
    for number in range(count):
        index = index_of(EVAL_CYCLE, task, number)
        scene, _ = task_of(task).draw(stream(0, split, index, 0), SPLITS[split], Dealer(0, split, number))
        out.append((scene, sample(split, index)))
    return out


def test_six_categories_alike_and_tasks_alike_within_each() -> None:
    assert len(PUBLISHED) == 6 and sum(map(len, PUBLISHED.values())) == len(set(EVAL_CYCLE))
    counts = collections.Counter(scheduled(EVAL_CYCLE, index)[0] for index in range(6400))
    per_category = collections.Counter()
    for task, count in counts.items():
        per_category[category_of(task)] += count
    assert min(per_category.values()) >= 1000
    for tasks in PUBLISHED.values():
        assert max(counts[t] for t in tasks) - min(counts[t] for t in tasks) <= 1
    numbers = collections.defaultdict(list)
    for index in range(2 * len(EVAL_CYCLE)):
        task, number = scheduled(EVAL_CYCLE, index)
        numbers[task].append(number)
    assert all(found == list(range(len(found))) for found in numbers.values())


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("split", ["test", "unseen", "train"])
def test_every_task_is_drawn(task: str, split: str) -> None:
    for scene, made in scenes_of(task, 6, "test" if split == "train" else split):
        question = made.questions[0]
        assert question.task == task and question.answer in question.choices
        assert len(set(question.choices)) == len(question.choices) >= 2
        assert "{" not in question.question and made.image.size == (SIZE, SIZE)
        words = made.cells
        assert len(words) == 64 and all(word and isinstance(word, str) for word in words)
        assert scene.image.tobytes() == made.image.tobytes()


CLOSED = [
    task for task in TASKS if task not in ("name", "read", "position", "size", "depth", "refer", "small", "document")
]


@pytest.mark.parametrize("task", CLOSED)
def test_answers_are_balanced(task: str) -> None:
    _, made = scenes_of(task, 1)[0]
    block = len(made.questions[0].choices) * 2
    answers = collections.Counter(sample("test", n, tasks=(task,)).questions[0].answer for n in range(block))
    assert set(answers.values()) == {2}, answers


def test_facts_are_about_what_can_be_drawn_and_do_not_contradict() -> None:
    for groups in (facts.PLACES, facts.KINDS, facts.USES, facts.LEGS, facts.HABITATS):
        listed = [name for group in groups.values() for name in group]
        assert len(set(listed)) == len(listed)
        assert set(listed) <= set(nouns())
    assert set(facts.POPULAR) <= set(nouns())
    for name in facts.KINDS["animal"]:
        assert nouns()[name].category == "animal"
    assert {tuple(row) for row in facts.FLAGS.values()}.__len__() == len(facts.FLAGS) >= 20
    assert {color for row in facts.FLAGS.values() for color in row[1:]} <= set(COLORS)


def test_the_right_caption_is_right_and_no_other() -> None:
    for scene, made in scenes_of("caption", 20):
        question = made.questions[0]
        first, second = scene.things
        assert side_of("horizontal", first, second) == "left"
        options = dict(
            part.split(": ") for part in question.question.rstrip(".").split(". ")[-1].split("? ")[-1].split("; ")
        )
        right = f"{first.name} left of {second.name}"
        assert options[question.answer] == right and list(options.values()).count(right) == 1
        words = collections.Counter(name for text in options.values() for name in text.split(" left of "))
        assert set(words.values()) == {2}  # every name stands in two captions: none is the odd one out


def test_presence_is_true() -> None:
    for task in ("exists_popular", "exists_adversarial"):
        for scene, made in scenes_of(task, 40):
            question, names = made.questions[0], {thing.name for thing in scene.things}
            asked = max((n for n in nouns() if f" {n} " in question.question.replace("?", " ? ")), key=len)
            assert (asked in names) == (question.answer == "yes")
            assert not any(other in nouns()[asked].kin for other in names - {asked})


def test_a_wrong_colour_belongs_to_something_else() -> None:
    for scene, made in scenes_of("attribute", 20):
        question = made.questions[0]
        shape = next(thing for thing in scene.things if f" {thing.name}" in question.question)
        color = next(c for c in COLORS if f" {c}" in question.question)
        assert (shape.color == color) == (question.answer == "yes")
        assert color in {thing.color for thing in scene.things}


def test_charts_say_what_is_answered() -> None:
    for scene, made in scenes_of("pie", 20):
        pick = max if "largest" in made.questions[0].question or "biggest" in made.questions[0].question else min
        assert pick(scene.of_kind("slice"), key=lambda thing: thing.area).color == made.questions[0].answer
    for scene, made in scenes_of("document", 20):
        texts = [thing.name for thing in scene.of_kind("text")]
        pairs = dict(zip(texts[::2], texts[1::2], strict=True))
        asked = next(name for name in pairs if name in made.questions[0].question)
        assert pairs[asked] == made.questions[0].answer
    for scene, made in scenes_of("table", 20):
        texts = [thing.name for thing in scene.of_kind("text")]
        columns, rows = texts[:3], [texts[3 + 4 * i : 7 + 4 * i] for i in range(3)]
        question = made.questions[0].question
        row = next(row for row in rows if f" {row[0]}" in question)
        column = next(i for i, name in enumerate(columns) if question.rstrip("?").endswith(f" {name.upper()}"))
        assert row[1 + column] == made.questions[0].answer


def test_in_front_is_drawn_last_and_overlaps() -> None:
    for scene, made in scenes_of("depth", 20):
        back, front = scene.things
        assert made.questions[0].answer == front.name
        width = min(back.box[2], front.box[2]) - max(back.box[0], front.box[0])
        height = min(back.box[3], front.box[3]) - max(back.box[1], front.box[1])
        assert width > 10 and height > 10


def test_turned_and_mirrored_things_look_different() -> None:
    pairs = [(noun.name, number) for noun in nouns().values() for number in range(len(noun.files["noto"]))]
    fit = [name for name, number in pairs if lopsided("noto", name, number, "mirror")]
    assert len(fit) > 60 and "fish" in fit and "egg" not in fit


def test_shades_differ_where_it_is_said() -> None:
    for scene, made in scenes_of("shade", 16):
        pixels = np.asarray(made.image, dtype=np.float64).mean(axis=-1)
        levels = {}
        for corner, thing in zip(("top left", "top right", "bottom left", "bottom right"), scene.things, strict=True):
            x, y = map(int, thing.center)
            levels[corner] = pixels[y, x]
        pick = min if "dark" in made.questions[0].question else max
        assert pick(levels, key=levels.__getitem__) == made.questions[0].answer


def test_the_frame_asked_about_holds_the_answer() -> None:
    for scene, made in scenes_of("refer", 20):
        question = made.questions[0]
        color = next(c for c in COLORS if f" {c} " in question.question)
        thing = next(t for t in scene.of_kind("object") if t.name == question.answer)
        pixel = np.asarray(made.image)[thing.box[1] - 2, (thing.box[0] + thing.box[2]) // 2].astype(int)
        assert np.abs(pixel - np.array(COLORS[color])).max() <= 12


def test_the_page_lists_every_task() -> None:
    page = (Path(__file__).parents[2] / "docs/probe.md").read_text()
    for task in EVAL_CYCLE:
        question = sample("test", index_of(EVAL_CYCLE, task, 0)).questions[0]
        assert f"| {category_of(task)} | `{task}` | {question.question} *{question.answer}* |" in page
