"""The probe: reproducible, without overlap, balanced, and true to what is drawn."""

import collections
import filecmp
import itertools
import json
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from igva.errors import UserError
from igva.probe import SPLITS, ProbeSample, build, build_split, category_of, picture_hash, sample
from igva.probe.describe import DESCRIBE
from igva.probe.drawing import background_for, draw_objects
from igva.probe.edition import EVAL_CYCLE, NO_THING, SUFFIX, TRAIN_CYCLE, index_of, scheduled
from igva.probe.pack import MIXED, MIXTURE, PACK, WHOLE, drawings, font_files, nouns
from igva.probe.scenes import COLORS
from igva.probe.suite import MOST_TALKS
from igva.probe.task_charts import WORDS

MANY = 1440  # four rounds of the evaluation cycle


@pytest.fixture(scope="module")
def samples() -> list[ProbeSample]:
    return [sample("test", index, seed=3) for index in range(MANY)]


def test_pack_is_complete() -> None:
    assert len(nouns()) >= 240
    for noun in nouns().values():
        assert len({len(noun.files[style]) for style in WHOLE}) == 1 and noun.files["noto"], noun.name
        assert set(noun.files) <= {*WHOLE, *MIXTURE}
        assert all(noun.name in nouns()[other].kin for other in noun.kin), noun.name
    assert len(font_files("train-")) == 6
    assert len(font_files("test-")) == 3


@pytest.mark.parametrize("split", SPLITS)
def test_sample_is_reproducible_and_depends_on_its_key(split: str) -> None:
    for index in (0, 5, 123):
        one, two = sample(split, index, 7), sample(split, index, 7)
        assert one.image.tobytes() == two.image.tobytes()
        assert (one.cells, one.conversations) == (two.cells, two.conversations)
        assert one.image.tobytes() != sample(split, index, 8).image.tobytes()
        assert one.image.size == (224, 224) and one.image.mode == "RGB"


def test_splits_share_no_picture() -> None:
    hashes = [
        picture_hash(sample(split, index, seed).image) for split in SPLITS for seed in (0, 1) for index in range(64)
    ]
    assert len(set(hashes)) == len(hashes)


def test_every_picture_carries_its_split() -> None:
    # This is what makes the splits disjoint by construction, not by luck.
    for split, spec in SPLITS.items():
        for index in range(60):
            red = np.asarray(sample(split, index).image)[0, 0, 0]
            assert red % 4 == spec.number


def test_answers_are_among_the_choices(samples: list[ProbeSample]) -> None:
    for made in samples:
        (question,) = made.questions
        assert question.answer in question.choices and question.answer == question.answer.lower()
        assert len(set(question.choices)) == len(question.choices)
        assert not question.question.endswith(SUFFIX)


def test_majority_answer_is_at_chance(samples: list[ProbeSample]) -> None:
    right, chance = collections.Counter[str](), collections.Counter[str]()
    groups: dict[tuple[str, ...], collections.Counter[str]] = {}
    for made in samples:
        question = made.questions[0]
        kind = (question.task, *(question.choices if question.task not in ("size",) else ()))
        groups.setdefault(kind, collections.Counter())[question.answer] += 1
        chance[question.task] += 1 / len(question.choices)
    for (task, *_), answers in groups.items():
        # "furthest" and "size" have the drawn names for choices, each nearly unique: no majority there.
        if len(answers) > 1:
            right[task] += max(answers.values())
    number = collections.Counter(made.questions[0].task for made in samples)
    for task in ("color", "count", "exists", "read", "chart"):
        assert right[task] / number[task] <= chance[task] / number[task] + 0.03, task


def test_mention_order_and_side_tell_nothing(samples: list[ProbeSample]) -> None:
    sides: collections.Counter[str] = collections.Counter()
    first: collections.Counter[bool] = collections.Counter()
    for question in (made.questions[0] for made in samples):
        if question.task == "position" and question.answer in ("left", "right", "above", "below"):
            sides[question.answer] += 1
        if question.task == "size" and len(question.choices) == 2 and " the " in question.question:
            first[question.choices.index(question.answer) == 0] += 1
    assert max(sides.values()) - min(sides.values()) <= 1
    assert abs(first[True] - first[False]) <= 2


def test_template_tells_nothing_about_the_answer() -> None:
    # Question-only baseline: learn the best answer per wording (names blanked) on one seed, use on another.
    def wordings(seed: int, task: str) -> list[tuple[str, str]]:
        out = []
        for number in range(100):
            question = sample("unseen", index_of(EVAL_CYCLE, task, number), seed).questions[0]
            known = {*nouns(), *(noun.plural for noun in nouns().values())}
            words = ["_" if word.strip("?,.") in known else word for word in question.question.split()]
            out.append((" ".join(words).replace(" an _", " a _"), question.answer))
        return out

    for task, chance in (("exists", 1 / 2), ("count", 1 / 5), ("color", 1 / 11)):
        learned: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
        for wording, answer in wordings(0, task):
            learned[wording][answer] += 1
        held_out = wordings(1, task)
        right = sum(
            learned[wording].most_common(1)[0][0] == answer for wording, answer in held_out if wording in learned
        )
        assert right / len(held_out) <= chance + 0.13, task  # 100 questions: 0.13 is ≤ 2.6 standard errors


def test_each_name_is_asked_with_yes_and_with_no(samples: list[ProbeSample]) -> None:
    asked: dict[str, list[str]] = collections.defaultdict(list)
    for made in samples:
        question = made.questions[0]
        if question.task == "exists":
            words = question.question.rstrip("?").split()
            (name,) = [word for word in words if word in nouns()]
            asked[name].append(question.answer)
    assert all(sorted(answers) == ["no", "yes"] for answers in asked.values())


def test_cells_agree_with_the_drawing() -> None:
    words = {*nouns(), *COLORS, *WORDS}
    old = ("name", "read", "chart", "exists", "position", "size", "color", "count")
    for task, number in itertools.product(old, range(30)):
        made = sample("test", index_of(EVAL_CYCLE, task, number), seed=5)
        question = made.questions[0]
        for word in made.cells:
            assert word in words or word.split()[0] in COLORS
        drawn = set(made.cells)
        if question.task in ("name", "read", "chart"):
            assert question.answer in drawn
        if question.task == "exists":
            (asked,) = [word for word in question.question.rstrip("?").split() if word in nouns()]
            assert (asked in drawn) == (question.answer == "yes")
        if question.task == "position" and question.answer in ("left", "right", "above", "below"):
            words_asked = question.question.replace(",", "").rstrip("?").split()
            one, other = [word for word in words_asked if word in nouns()]
            if question.question.startswith("On which side of") or question.question.startswith("Compared to"):
                one, other = other, one
            axis, sign = {"left": (1, -1), "right": (1, 1), "above": (0, -1), "below": (0, 1)}[question.answer]
            grid = np.array(made.cells).reshape(8, 8)
            gap = np.nonzero(grid == one)[axis].mean() - np.nonzero(grid == other)[axis].mean()
            assert sign * gap > 0, question
        if question.task == "size" and len(question.choices) == 2:
            other = next(name for name in question.choices if name != question.answer)
            larger = "larger" in question.question or "bigger" in question.question
            sign = 1 if larger else -1
            assert sign * (made.cells.count(question.answer) - made.cells.count(other)) >= 0, question
        if "background" in question.question:
            # Whatever cell is called by the background's name looks like it.
            pixels = np.asarray(made.image, dtype=float).reshape(8, 28, 8, 28, 3).transpose(0, 2, 1, 3, 4)
            for place, word in enumerate(made.cells):
                if word == question.answer:
                    median = np.median(pixels[place // 8, place % 8].reshape(-1, 3), axis=0)
                    assert np.abs(median - np.array(COLORS[word])).max() < 24


def test_counts_are_true() -> None:
    # Copies never touch, so what is not background falls into as many pieces as there are things.
    def pieces(image: Image.Image) -> int:
        pixels = np.asarray(image, dtype=float)
        solid = np.abs(pixels - pixels[0, 5]).max(axis=-1) > 30
        todo, found = set(zip(*(axis.tolist() for axis in np.nonzero(solid)), strict=True)), 0
        while todo:
            edge, size = [todo.pop()], 0
            while edge:
                y, x = edge.pop()
                size += 1
                near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & todo
                todo -= near
                edge.extend(near)
            found += size > 50  # the thin tip of a star may fade into the background
        return found

    checked = 0
    for number in range(40):
        made = sample("test", index_of(EVAL_CYCLE, "count", number), seed=2)
        shapes = {word for word in made.cells if " " in word}
        if shapes and len({word.split()[1] for word in shapes}) == 1:
            assert pieces(made.image) == int(made.questions[0].answer)
            checked += 1
    assert checked >= 3


def test_the_mixed_style_adds_drawings_and_never_the_held_out_ones() -> None:
    assert "twemoji" not in MIXTURE and "twemoji" not in SPLITS["train"].styles
    assert SPLITS["unseen"].styles == ("twemoji",)
    assert all(set(SPLITS[split].styles) <= set(WHOLE) for split in ("val", "test", "unseen"))
    more = [name for name in nouns() if len(drawings(MIXED, name)) > 2 * len(drawings("noto", name))]
    assert len(more) > 200
    assert all(len(drawings(MIXED, name)) >= 2 * len(drawings("noto", name)) for name in nouns())


def test_every_noun_is_drawn_by_more_hands_than_those_of_the_whole_sets() -> None:
    added = [style for style in MIXTURE if style not in WHOLE]
    hands = {name: [style for style in added if style in noun.files] for name, noun in nouns().items()}
    assert all(hands.values())
    split = SPLITS["train"]._replace(styles=(MIXED,))
    for name in [name for name, styles in hands.items() if len(styles) == 1]:
        scene = background_for(random.Random(0), split, name)
        draw_objects(scene, [name], [(60, 60, 160, 160)])
        assert [thing.name for thing in scene.things] == [name] and scene.things[0].area > 0


def test_every_listed_drawing_is_in_its_archive_and_none_beside() -> None:
    for style in {*WHOLE, *MIXTURE}:
        listed = {file for noun in nouns().values() for file in noun.files.get(style, ())}
        assert listed == set(zipfile.ZipFile(PACK / f"{style}.zip").namelist())


def test_training_conversations() -> None:
    turns: collections.Counter[str] = collections.Counter()
    answers: collections.Counter[str] = collections.Counter()
    suffixed = talks = 0
    for index in range(420):
        made = sample("train", index)
        plain = [talk for talk in made.conversations if not talk.imagined]
        asked = [talk for talk in plain if talk.task != DESCRIBE]
        assert len(plain) - len(asked) <= 1 and len(asked) <= MOST_TALKS
        assert asked or scheduled(TRAIN_CYCLE, index)[0] == NO_THING
        assert len({talk.task for talk in asked}) == len(asked)
        for talk in asked:
            assert 1 <= len(talk.turns) <= 5 and {turn.task for turn in talk.turns} == {talk.task}
            assert len({turn.question for turn in talk.turns}) == len(talk.turns)
            turns[talk.task] += len(talk.turns)
            answers.update(turn.answer for turn in talk.turns if talk.task == "exists")
            suffixed, talks = suffixed + talk.suffix, talks + 1
    assert set(turns) == set(EVAL_CYCLE)
    assert 0.33 < answers["yes"] / answers.total() < 0.67  # 78 answers: three standard errors
    assert 0.23 < suffixed / talks < 0.37


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_build_is_byte_identical_whatever_the_workers(tmp_path: Path) -> None:
    one = build("val", tmp_path / "one", 24, seed=4)
    two = build("val", tmp_path / "two", 24, seed=4, workers=2)
    assert tree(one) == tree(two)
    assert all(filecmp.cmp(one / name, two / name, shallow=False) for name in tree(one))
    # No temporary folder is left:
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def test_build_files_parse(tmp_path: Path) -> None:
    folder = build("train", tmp_path / "train", 12)
    records = json.loads((folder / "data.json").read_text())
    assert not (folder / "questions.json").exists()
    cells = json.loads((folder / "cells.json").read_text())
    assert set(cells) == {record["image"] for record in records} and len(cells) == 12
    assert len({record["id"] for record in records}) == len(records)
    for record in records:
        assert record["task"] in (*EVAL_CYCLE, DESCRIBE) and (folder / record["image"]).is_file()
        assert record["category"] == category_of(record["task"])
        assert len(record["choices"]) == len(record["conversations"]) // 2
        for turn, choices in zip(record["conversations"][1::2], record["choices"], strict=True):
            free = record["task"] == DESCRIBE or "imagined" in record
            assert turn["value"] in choices or (free and not choices)
        speakers = [turn["from"] for turn in record["conversations"]]
        assert speakers == ["human", "gpt"] * (len(speakers) // 2)
        first, *rest = record["conversations"]
        assert first["value"].startswith("<image>\n")
        assert not any("<image>" in turn["value"] for turn in rest)
    folder = build("unseen", tmp_path / "unseen", 9)
    questions = json.loads((folder / "questions.json").read_text())
    assert not (folder / "data.json").exists()  # the unseen style is never trained on
    assert [row["image"] for row in questions] == [f"images/{index:06d}.png" for index in range(9)]
    assert set(questions[0]) == {"id", "image", "question", "answer", "choices", "task", "category"}


def test_a_coinciding_picture_is_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def same_picture_at_first(split: str, index: int, seed: int, attempt: int, tasks: tuple[str, ...]) -> ProbeSample:
        return sample(split, 0 if attempt == 0 else index, seed, attempt, tasks)

    monkeypatch.setattr(build_split, "sample", same_picture_at_first)
    folder = build("test", tmp_path / "out", 3)
    hashes = {picture_hash(Image.open(path)) for path in (folder / "images").iterdir()}
    assert len(hashes) == 3


def test_build_refuses(tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="full exists already: name a new or empty folder"):
        build("test", full, 3)
    with pytest.raises(UserError, match="unknown split 'tset'; use one of train"):
        build("tset", tmp_path / "a", 3)
    with pytest.raises(UserError, match="count is 0"):
        build("test", tmp_path / "a", 0)
    with pytest.raises(UserError, match="workers is 0"):
        build("test", tmp_path / "a", 3, workers=0)
    assert (full / "mine.txt").read_text() == "mine" and not (tmp_path / "a").exists()


def test_failed_build_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, data: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(build_split, "_dump", fail)
    with pytest.raises(UserError, match="out cannot be written: disk full"):
        build("test", tmp_path / "out", 2)
    assert list(tmp_path.iterdir()) == []
