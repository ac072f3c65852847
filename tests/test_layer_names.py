"""What layers and their groups are called, with names and without."""

from types import SimpleNamespace

import pytest

from igva.layer_names import group_label, layer_label, layer_names
from igva.testing import tiny_model

NAMES = [*(f"dinov2.{layer}" for layer in (2, 3, 4, 6, 8)), "efficient-net.3", "efficient-net.4", "efficient-net.words"]


@pytest.mark.parametrize(
    ("group", "label"),
    [
        ([5], "layer 5"),
        ([1, 2], "layers 1-2"),
        (range(1, 7), "layers 1-6"),
        ([1, 2, 5], "layers 1,2,5"),
        ([0, 1], "layers 0-1"),
    ],
)
def test_numbers(group, label):
    assert group_label(group) == label


@pytest.mark.parametrize(
    ("group", "label"),
    [
        ([1], "dinov2.2"),
        ([8], "efficient-net.words"),
        ([1, 2, 3], "dinov2.2-4"),
        ([1, 2, 3, 4], "dinov2.2-4,6"),
        ([3, 4, 5], "dinov2.4,6,8"),  # neighbours in the ensemble, not in their encoder
        ([5, 6, 7, 8], "dinov2.8 + efficient-net.3-4,words"),
        ([2, 7], "dinov2.3 + efficient-net.4"),
        ([0], "dinov2.2"),
        ([0, 1, 2], "dinov2.2-3"),  # what enters the first layer of such a tower is that layer
    ],
)
def test_names(group, label):
    assert group_label(group, NAMES) == label


def test_names_that_are_single_words():
    assert group_label([1, 2, 3], ["1", "2", "head"]) == "1-2,head"


def test_a_single_layer_keeps_its_number():
    assert layer_label(7) == "layer 7"
    assert layer_label(8, NAMES) == "layer 8 (efficient-net.words)"
    assert layer_label(0, NAMES) == "layer 0 (dinov2.2)"


def test_whose_layers_have_names(ensemble):
    assert layer_names(ensemble[0].config) == ["dinov2.2", "dinov2.4", "efficientnet.2", "efficientnet.words"]
    assert layer_names(tiny_model().config) is None
    assert layer_names(SimpleNamespace(vision=SimpleNamespace(layer_names=("a.1",)))) == ["a.1"]
