"""EfficientNet-Lite: padding, residuals, numbering, and a layer of words that is softmax times vectors."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import AutoModel

from igva.model.efficientnet_lite import (
    STAGES,
    ConvNorm,
    EfficientNetLiteConfig,
    EfficientNetLiteModel,
    InvertedResidual,
    WordsLayer,
)
from igva.testing import efficientnet_config


def ones(kernel, stride):
    """A convolution that sums what it sees, without its norm and activation."""
    layer = ConvNorm(1, 1, kernel, eps=1e-3, stride=stride, linear=True)
    layer.norm = nn.Identity()
    nn.init.ones_(layer.conv.weight)
    return layer


# TensorFlow's rule: as many places as ⌈side / stride⌉, and of the pixels missing the odd one comes last.
@pytest.mark.parametrize(
    ("side", "kernel", "stride", "expected"),
    [
        (4, 3, 2, [3, 2]),  # an even side: nothing before, one after: {0,1,2}, {2,3}
        (5, 3, 2, [2, 3, 2]),  # an odd side: one before, one after
        (4, 5, 2, [4, 3]),  # one before, two after: {0,1,2,3}, {1,2,3}
        (4, 3, 1, [2, 3, 3, 2]),
        (5, 5, 2, [3, 5, 3]),  # two before, two after
        (2, 1, 1, [1, 1]),
    ],
)
@torch.no_grad()
def test_padding_is_that_of_tensorflow(side, kernel, stride, expected):
    out = ones(kernel, stride)(torch.ones(1, 1, side, side))
    seen = torch.tensor(expected, dtype=torch.float)
    assert torch.equal(out[0, 0], seen.outer(seen))  # of a square of ones: the product of what each side sees


@torch.no_grad()
def test_height_and_width_are_padded_on_their_own():
    out = ones(3, 2)(torch.ones(1, 1, 4, 5))
    assert torch.equal(out[0, 0], torch.tensor([[3.0], [2.0]]) * torch.tensor([2.0, 3.0, 2.0]))


@torch.no_grad()
def test_a_block_adds_its_input_where_nothing_changes_shape():
    for size_in, size, stride, adds in ((8, 8, 1, True), (8, 12, 1, False), (8, 8, 2, False)):
        block = InvertedResidual(size_in, size, kernel=3, stride=stride, expansion=2, eps=1e-3).eval()
        nn.init.zeros_(block.project.conv.weight)  # the block itself says nothing
        maps = torch.randn(2, 8, 6, 6)
        out = block(maps)
        assert out.shape == (2, size, 6 // stride, 6 // stride)
        assert torch.equal(out, maps) if adds else not out.any(), (size_in, size, stride)


def test_the_first_stage_does_not_widen():
    assert isinstance(InvertedResidual(8, 8, 3, 1, expansion=1, eps=1e-3).expand, nn.Identity)


@torch.no_grad()
def test_words_are_the_expected_vector_of_the_classes():
    layer = WordsLayer(head_size=6, num_classes=5, word_size=4)
    layer.vectors.normal_()
    head = torch.randn(2, 6, 3, 3)
    out = layer(head)
    assert out.shape == (2, 4, 3, 3)
    logits = layer.classifier.weight @ head[1, :, 2, 0] + layer.classifier.bias
    torch.testing.assert_close(out[1, :, 2, 0], logits.softmax(0) @ layer.vectors)
    layer.classifier.bias[3] = 1e4  # a class seen with certainty is its vector
    torch.testing.assert_close(layer(head)[0, :, 1, 1], layer.vectors[3])


@torch.no_grad()
def test_hidden_states_are_numbered_from_the_stem():
    config = efficientnet_config(word_size=32)
    model = EfficientNetLiteModel(config).eval()
    out = model(torch.rand(2, 3, 32, 32), output_hidden_states=True)
    assert [tuple(state.shape[1:]) for state in out.hidden_states] == [
        (8, 16, 16),  # the stem
        (8, 16, 16),
        (12, 8, 8),
        (24, 8, 8),  # the head
        (32, 8, 8),  # the words
    ]
    assert [state.shape[1] for state in out.hidden_states] == config.layer_sizes
    assert config.num_hidden_layers == 4
    assert torch.equal(out.last_hidden_state, out.hidden_states[-1])
    torch.testing.assert_close(model.words(out.hidden_states[3]), out.hidden_states[4])
    assert model(torch.rand(1, 3, 32, 32)).hidden_states is None


def test_without_words_the_head_is_last():
    config = efficientnet_config()
    model = EfficientNetLiteModel(config).eval()
    assert (config.num_hidden_layers, model.words) == (3, None)
    assert model(torch.rand(1, 3, 32, 32)).last_hidden_state.shape == (1, 24, 8, 8)


def test_lite0_has_its_published_size():
    """4.65 million parameters, of which the classifier has 1,281,000."""
    with torch.device("meta"):
        model = EfficientNetLiteModel(EfficientNetLiteConfig())
    assert sum(blocks for blocks, *_ in STAGES) == 16
    assert sum(parameter.numel() for parameter in model.parameters()) == 4_652_008 - 1_281_000


@torch.no_grad()
def test_saving_keeps_all_of_it(tmp_path):
    model = EfficientNetLiteModel(efficientnet_config(word_size=32)).eval()
    model.words.vectors.normal_()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert type(loaded) is EfficientNetLiteModel
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())
    half = AutoModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    out = half(torch.rand(1, 3, 32, 32).bfloat16()).last_hidden_state
    assert out.dtype == torch.bfloat16 and out.isfinite().all()
