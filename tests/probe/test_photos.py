"""Photographs in training pictures: what is asked is true, cells are right, and imagined classes are dealt evenly."""

import collections
import json
import random
from pathlib import Path

import numpy as np
import pytest

from igva.imagenet.classes import classes
from igva.probe import SPLITS, ProbeSample, backdrops, build, imagined, pack, photos, sample
from igva.probe.check import read_train
from igva.probe.describe import DESCRIBE
from igva.probe.edition import (
    NO_THING,
    PHOTO,
    PHOTO_SHARES,
    PHOTOS,
    PUBLISHED,
    SUFFIX,
    TRAIN_CYCLE,
    VAL_CYCLE,
    scheduled,
)
from igva.probe.facts import DISPUTED, KIND_OF, KINDS
from igva.probe.scenes import BACKDROP, COLORS, GRID, SIZE, Scene, side_of
from igva.probe.task_base import Dealer, kind_words, stream
from igva.probe.task_fine import BACKGROUND_WORDINGS
from igva.probe.task_general import NAME_BY_KIND_WORDINGS, NAME_WORDINGS
from igva.probe.task_hallucination import EXISTS_WORDINGS
from igva.probe.task_knowledge import WHETHER_WORDINGS, ask_whether

MANY = 400


@pytest.fixture(scope="module")
def samples() -> list[tuple[str, ProbeSample]]:
    return [(scheduled(TRAIN_CYCLE, index)[0], sample("train", index, seed=2)) for index in range(MANY)]


@pytest.fixture(scope="module")
def drawn() -> list[tuple[str, Scene]]:
    found = []
    for index in range(MANY):
        task, number = scheduled(TRAIN_CYCLE, index)
        if task in (PHOTO, PHOTOS):
            rng = stream(0, "train", index, 0)
            found.append((task, photos.DRAW[task](rng, SPLITS["train"], Dealer(0, "train", number))[0]))
    return found


def test_two_of_five_pictures_are_made_for_photographs_and_no_task_is_lost() -> None:
    shares = collections.Counter(TRAIN_CYCLE)
    published = {name for names in PUBLISHED.values() for name in names}
    assert {key: shares[key] for key in PHOTO_SHARES} == PHOTO_SHARES and published <= set(shares)
    assert 0.37 < sum(PHOTO_SHARES.values()) / len(TRAIN_CYCLE) < 0.43
    assert not set(PHOTO_SHARES) & {scheduled(VAL_CYCLE, index)[0] for index in range(200)}


def test_one_thing_is_large_and_most_backgrounds_are_photographs(drawn) -> None:
    single = [scene for task, scene in drawn if task == PHOTO]
    assert all(len(scene.things) == 1 and scene.things[0].photo for scene in single)
    assert 0.5 < sum(scene.photographed for scene in single) / len(single) < 0.88
    longest = [max(thing.box[2] - thing.box[0], thing.box[3] - thing.box[1]) for (thing,) in (s.things for s in single)]
    assert min(longest) > 0.33 * SIZE and max(longest) > 0.8 * SIZE
    # The deck deals each name once before it deals one again.
    names = [scene.things[0].name for scene in single]
    assert len(set(names)) == min(len(names), len(pack.photograph_names()))


def test_cells_of_things_and_backgrounds(drawn, samples) -> None:
    for _, scene in drawn:
        words = scene.cells()
        assert {thing.name for thing in scene.things} >= set(words) - {scene.background}
        photo = set(scene.photo_cells())
        for cell, owner in enumerate(scene.owners()):
            shown = scene.photographed if owner is None else scene.things[owner].photo
            assert (cell in photo) == shown
            assert words[cell] == (scene.background if owner is None else scene.things[owner].name)
    for task, made in samples:
        assert task != NO_THING or (set(made.cells) == {BACKDROP} and len(made.photo_cells) == GRID * GRID)


def test_a_background_without_a_colour_is_not_asked_for_one(samples) -> None:
    asked = 0
    for _, made in samples:
        ground = [turn for turn in made.questions if turn.question in BACKGROUND_WORDINGS]
        asked += len(ground)
        assert not ground or BACKDROP not in made.cells
        assert all(turn.answer in COLORS for turn in ground)
    assert asked >= 5


def test_what_is_asked_about_several_is_true() -> None:
    checked = collections.Counter[str]()
    for index in range(700):
        task, number = scheduled(TRAIN_CYCLE, index)
        if task != PHOTOS:
            continue
        scene, first = photos.DRAW[task](stream(1, "train", index, 0), SPLITS["train"], Dealer(1, "train", number))
        here = [thing.name for thing in scene.things]
        words = first.question.replace(",", "").rstrip("?.").split()
        checked[first.task] += 1
        assert first.answer in first.choices
        if first.task == "count":
            assert here.count(scene.subject) == int(first.answer)
        elif first.task == "size":
            assert first.answer in here
        elif first.task.startswith("exists"):
            named = [name for name in (*pack.nouns(), *pack.photo_nouns()) if name in words]
            assert (named[-1] in here) == (first.answer == "yes")
        elif first.task == "position":
            axis = "horizontal" if first.answer in ("left", "right") else "vertical"
            pair = [thing for thing in scene.things if thing.name in words]
            assert first.answer in {side_of(axis, *pair), side_of(axis, *reversed(pair))}
    assert {"count", "position", "exists"} <= set(checked)


def test_names_that_only_photographs_have_can_be_asked_about(drawn, samples) -> None:
    extra = set(pack.photo_nouns())
    assert extra and not extra & set(pack.nouns()) and extra & set(pack.photograph_names())
    # An imagined class may be called so too (a bison): its label comes without a list to choose from.
    real = [talk for _, made in samples for talk in made.conversations if not talk.imagined]
    turns = [turn for talk in real for turn in talk.turns if turn.task == "name" and turn.answer in extra]
    assert turns and all(turn.answer in turn.choices for turn in turns)


def test_open_questions_fit_what_is_shown(samples) -> None:
    yes = collections.Counter[str]()
    opened = 0
    for _, made in samples:
        for turn in (turn for talk in made.conversations if not talk.imagined for turn in talk.turns):
            if turn.task == "kind" and turn.choices == ("yes", "no"):
                (name,) = set(made.cells) - {BACKDROP, *COLORS}
                own = KIND_OF[name]
                assert turn.question in {way.format(**kind_words(kind)) for kind in KINDS
                                         for way in WHETHER_WORDINGS
                                         if (kind == own) == (turn.answer == "yes")}  # fmt: skip
                yes[turn.answer] += 1
            if turn.task == "name" and turn.question not in NAME_WORDINGS:
                own = KIND_OF[turn.answer]
                ways = {way.format(**kind_words(own)) for way in NAME_BY_KIND_WORDINGS}
                assert turn.question in ways
                opened += 1
    assert opened >= 20 and yes.total() >= 20
    assert abs(yes["yes"] / yes.total() - 0.5) < 1.5 / yes.total() ** 0.5


def test_whether_it_is_of_a_kind_is_never_asked_where_one_could_argue() -> None:
    rng = random.Random(0)
    for kinds in (("lobster", "animal"), ("fruit", "food"), ("flower", "plant"), ("bus", "vehicle")):
        turns = [ask_whether(rng, kinds) for _ in range(300)]
        for turn in turns:
            own = {way.format(**kind_words(k)) for k in kinds for way in WHETHER_WORDINGS}
            assert (turn.question in own) == (turn.answer == "yes")
            disputed = DISPUTED[kinds[-1]]
            said = {way.format(**kind_words(k)) for k in disputed
                    for way in WHETHER_WORDINGS}  # fmt: skip
            assert turn.question not in said
        assert 0.4 < sum(turn.answer == "yes" for turn in turns) / 300 < 0.6
    assert ask_whether(rng, ()) is None and ask_whether(rng, ("weapon",)) is None


def test_imagined_conversations(samples) -> None:
    table = {one.index: one for one in classes()}
    shares, where = [], collections.Counter[str]()
    exists = collections.Counter[str]()
    for task, made in samples:
        talks = [talk for talk in made.conversations if talk.imagined]
        assert len(talks) <= 2 and (not talks or task in (PHOTO, NO_THING))
        assert task != NO_THING or len(talks) == len(made.conversations) == 2
        for talk in talks:
            shown = table[talk.imagined.index]
            shares.append(talk.imagined.share)
            where[task] += 1
            assert set(talk.imagined.cells) <= set(made.photo_cells) and len(set(talk.imagined.cells)) >= 3
            assert task != NO_THING or len(talk.imagined.cells) >= 20
            assert talk.task == talk.turns[0].task != DESCRIBE and 1 <= len(talk.turns) <= 4
            for turn in talk.turns:
                assert not turn.choices or turn.answer in turn.choices
                if turn.task == "name":
                    assert turn.answer in (shown.name, shown.label)
                elif turn.task == "exists":
                    own = {shown.phrase, pack.noun(shown.name).phrase if shown.name else shown.phrase}
                    said = {way.format(a=phrase) for phrase in own for way in EXISTS_WORDINGS}
                    assert (turn.question in said) == (turn.answer == "yes")
                    exists[turn.answer] += 1
    assert min(shares) >= 0.2 and max(shares) <= 1 and np.mean(np.array(shares) > 0.5) > 0.65
    assert 0.2 < where[NO_THING] / where.total() < 0.5
    assert abs(exists["yes"] / exists.total() - 0.5) < 1.5 / exists.total() ** 0.5


def test_named_and_nameless_classes_are_dealt_alike() -> None:
    seen = collections.Counter[int]()
    rounds = 3 * len(classes())
    for number in range(rounds):
        scene = Scene(random.Random(number), SPLITS["train"], "noto", BACKDROP,
                      backdrops.shaded(random.Random(0), SIZE), photographed=True)  # fmt: skip
        seen.update(what.index for what, _ in imagined.conversations(scene, Dealer(0, "train", number), "x"))
    named = [seen[one.index] for one in classes() if one.name]
    nameless = [seen[one.index] for one in classes() if not one.name]
    assert sum(named) == sum(nameless) == rounds
    assert max(named) - min(named) <= 1 and max(nameless) - min(nameless) <= 1


def test_regions_hang_together() -> None:
    rng, sizes = random.Random(1), set()
    for _ in range(200):
        cells = imagined.region(rng)
        sizes.add(len(cells))
        assert 20 <= len(cells) == len(set(cells)) <= 64 and set(cells) <= set(range(64))
        reached, todo = {cells[0]}, [cells[0]]
        while todo:
            for near in imagined._neighbours(todo.pop()):
                if near in cells and near not in reached:
                    reached.add(near)
                    todo.append(near)
        assert reached == set(cells)
    assert 64 in sizes and min(sizes) < 26


def test_files(tmp_path: Path) -> None:
    folder = build("train", tmp_path / "train", 30)
    records = json.loads((folder / "data.json").read_text())
    photos = json.loads((folder / "photos.json").read_text())
    made = [record for record in records if "imagined" in record]
    assert made and len({record["id"] for record in records}) == len(records)
    for record in made:
        assert set(record["imagined"]) == {"class", "share", "cells"}
        assert set(record["imagined"]["cells"]) <= set(photos[record["image"]]["cells"])
        assert len(record["choices"]) == len(record["conversations"]) // 2
    asked = {row.question for row in read_train(folder / "data.json")}
    plain = {turn["value"].removeprefix("<image>\n").removesuffix(SUFFIX)
             for record in records if "imagined" not in record for turn in record["conversations"]}  # fmt: skip
    assert asked <= plain
    assert not (build("val", tmp_path / "val", 3) / "photos.json").exists()


def test_backdrops_have_the_size_asked_for_and_differ() -> None:
    for make in (backdrops.photographed, backdrops.shaded):
        made = [make(random.Random(seed), 96) for seed in range(12)]
        assert all(image.size == (96, 96) and image.mode == "RGB" for image in made)
        assert len({image.tobytes() for image in made}) == 12
    worn = [backdrops.worn(random.Random(seed), made[0], True) for seed in range(30)]
    assert all(image.size == (96, 96) and image.mode == "RGB" for image in worn)
    assert 5 < len({image.tobytes() for image in worn}) < 31
