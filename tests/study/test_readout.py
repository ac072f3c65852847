"""What is planted in a layer is found there, and nowhere else."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from igva.data.questions import Question as Item
from igva.model.fusions import build_fusion
from igva.study.guidance import OTHER_WEIGHTS
from igva.study.readout import AnswerSheet, Readout, ReadoutSettings, ReadoutTrial

SMALL = ReadoutSettings(steps=120, batch_size=32, width=32, blocks=1, learning_rate=3e-3, fusion_lr=3e-3)
OPTIONS = {"igva": {"num_groups": 4, "hidden_size": 32, "num_blocks": 1, "level_embeddings": True, "base_layer": 2}}


def trial(material, dims, name, kwargs, **options):
    return ReadoutTrial(build_fusion(name, kwargs, dims), material, SMALL, seed=0, **options)


def share(material, right, task):
    hits = [hit for hit, item in zip(right, material.test, strict=True) if item.task == task]
    return sum(hits) / len(hits)


@pytest.mark.parametrize(("layer", "color", "shape"), [(1, True, False), (3, False, True), (2, False, False)])
def test_a_layer_answers_what_it_holds(material, dims, layer, color, shape):
    result = trial(material, dims, "single", {"layer": layer}).run(material.train, material.test)
    for task, there in (("color", color), ("shape", shape)):
        found = share(material, result.right, task)
        assert found > 0.95 if there else found < 0.5, task
    assert result.weights is None and result.parameters == 0 and result.step_ms > 0


def test_without_pictures_it_guesses(material, dims):
    result = trial(material, dims, "mean", {"num_groups": 4}, blind=True).run(material.train, material.test)
    assert sum(result.right) / len(result.right) < 0.5


def test_an_aggregator_learns_where_to_look(material, dims):
    result = trial(material, dims, "igva", OPTIONS["igva"]).run(material.train, material.test)
    assert share(material, result.right, "color") > 0.95 and share(material, result.right, "shape") > 0.95
    colors, shapes = result.weights["Fine-Grained"], result.weights["General"]
    assert colors[0] > shapes[0] + 0.1 and shapes[2] > colors[2] + 0.1  # layer 1 for colours, layer 3 for shapes


def test_other_weights_are_given_to_a_trained_guide(material, dims):
    """It looks at layer 1 for colours and at layer 3 for shapes: the other question's weights are other weights."""
    guided = trial(material, dims, "igva", OPTIONS["igva"])
    result = guided.run(material.train, material.test)
    exchange = guided.exchange(material.test)
    ids = [item.id for item in material.test]
    assert list(exchange.moved) == ids and list(exchange.scores) == list(OTHER_WEIGHTS)
    assert all(list(scores) == ids for scores in exchange.scores.values())
    assert sum(exchange.moved.values()) / len(ids) > 0.1
    assert result.right == guided._test(material.test)[0]  # exchanging changes nothing


def test_a_guide_that_says_nothing_loses_nothing(material, dims):
    silent = trial(material, dims, "igva", {**OPTIONS["igva"], "uniform_start": True})
    own = dict(zip([item.id for item in material.test], map(float, silent._test(material.test)[0]), strict=True))
    exchange = silent.exchange(material.test)
    assert not any(exchange.moved.values())
    assert exchange.scores == dict.fromkeys(OTHER_WEIGHTS, own)


def test_what_reads_no_question_has_nothing_to_exchange(material, dims):
    assert trial(material, dims, "mean", {"num_groups": 4}).exchange(material.test) is None
    colors = [item for item in material.test if item.task == "color"]
    assert trial(material, dims, "igva", OPTIONS["igva"]).exchange(colors) is None
    assert list(trial(material, dims, "mol_layer", {}).exchange(material.test).scores) == [OTHER_WEIGHTS[0]]


def test_a_seed_decides_everything(material, dims):
    settings = dataclasses.replace(SMALL, steps=5)
    fusion = lambda: build_fusion("single", {"layer": 1}, dims)  # noqa: E731
    first, again, other = (
        ReadoutTrial(fusion(), material, settings, seed=seed).run(material.train, material.test) for seed in (3, 3, 4)
    )
    assert first.loss == again.loss and first.right == again.right
    assert first.loss != other.loss


def test_only_allowed_answers_are_given():
    closed = Item("a", "x", "?", "red", ("red", "blue"), "t", "c")
    open_item = Item("b", "x", "?", "green", (), "t", "c")
    sheet = AnswerSheet([closed, open_item], [dataclasses.replace(closed, choices=("red", "white"))])
    assert sheet.texts == ["red", "green", "blue", "white"] and sheet.open == ["red", "green"]
    barred = sheet.barred([closed, open_item])
    assert barred.tolist() == [[0, -math.inf, 0, -math.inf], [0, 0, -math.inf, -math.inf]]
    assert sheet.number("blue") == 2 and sheet.number("purple") == -1


def test_padding_of_the_question_does_not_matter():
    torch.manual_seed(0)
    readout = Readout(width=SMALL.width, visual_dim=6, num_tokens=3, text_dim=5, num_answers=4).eval()
    features, words, answers = torch.randn(2, 3, 6), torch.randn(2, 4, 5), torch.randn(4, 5)
    padding = torch.tensor([[False] * 4, [False, False, True, True]])
    changed = words.clone()
    changed[1, 2:] = 99.0
    with torch.no_grad():
        first, second = (readout(features, w, padding, answers) for w in (words, changed))
        alone = readout(features[1:], words[1:, :2], padding[1:, :2], answers)
    assert first.shape == (2, 4)
    torch.testing.assert_close(first, second)
    torch.testing.assert_close(first[1:], alone)


def test_a_warm_up_names_the_cells(material, dims):
    cells = {item.image: [str(item.image).split("-")[0]] * 4 for item in material.train}
    known = dataclasses.replace(material, cells=cells)
    settings = dataclasses.replace(SMALL, warm_up_steps=60)
    fusion = build_fusion("single", {"layer": 1}, dims)
    assert ReadoutTrial(fusion, known, settings, seed=0).warm_up(fusion) > 0.95
    assert ReadoutTrial(fusion, known, settings, seed=0, blind=True).warm_up(fusion) < 0.5
    other = build_fusion("single", {"layer": 3}, dims)
    assert ReadoutTrial(other, known, settings, seed=0).warm_up(other) < 0.5
