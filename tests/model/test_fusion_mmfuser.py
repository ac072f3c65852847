"""MMFuser against its published numbers, and its attention against one written as loops."""

from __future__ import annotations

import math

import pytest
import torch

from igva.model.fusion_base import FusionDims
from igva.model.fusion_mmfuser import DeformableAttention, published_layers
from igva.model.fusions import build_fusion
from igva.model.vision_layers import VisionLayers
from igva.testing import tiny_model

CLIP_L = FusionDims(num_layers=24, vision_dim=1024, num_patches=576, instruction_dim=None)
SMALL = FusionDims(num_layers=6, vision_dim=8, num_patches=9, instruction_dim=None)
OPTIONS = {"layers": [1, 3, 5], "num_heads": 2, "num_points": 3}


def random_layers(fusion):
    taps = len(fusion.taps)
    return VisionLayers(torch.randn(2, taps, 9, 8), torch.randn(2, taps, 8))


def test_layers_and_parameters_as_published():
    with torch.device("meta"):
        fusion = build_fusion("mmfuser", {}, CLIP_L)
    assert fusion.taps == ((3,), (8,), (13,), (18,), (23,))
    assert sum(p.numel() for p in fusion.parameters()) == 5_190_592
    assert (fusion.output_dim, fusion.num_tokens) == (1024, 576)
    assert published_layers(12) == [2, 4, 6, 9, 11] and published_layers(3) == [1, 2]


@pytest.mark.parametrize("inside_a_model", [False, True])
def test_it_starts_as_the_base_layer_and_only_the_first_gate_learns(inside_a_model):
    if inside_a_model:  # transformers initialises what no checkpoint brings
        fusion = tiny_model("mmfuser", fusion_kwargs={"num_heads": 2}).model.fusion.train()
        layers = VisionLayers(torch.randn(2, len(fusion.taps), 4, 32), torch.randn(2, len(fusion.taps), 32))
    else:
        fusion = build_fusion("mmfuser", OPTIONS, SMALL)
        layers = random_layers(fusion)
    out = fusion(layers, None).features
    assert torch.equal(out, layers.patches[:, -1])
    out.square().sum().backward()
    learns = {name for name, p in fusion.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert learns == {"gamma_1.weight"}


def test_the_offsets_start_as_a_ring():
    attention = DeformableAttention(16, num_levels=2, num_heads=4, num_points=3)
    ring = attention.sampling_offsets.bias.view(4, 2, 3, 2)
    expected = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    for point in range(3):
        torch.testing.assert_close(ring[:, 0, point], expected * (point + 1), atol=1e-6, rtol=0)
    assert torch.equal(ring[:, 0], ring[:, 1])
    sixteenth = DeformableAttention(16, 1, 16, 1).sampling_offsets.bias.view(16, 2)
    assert sixteenth[2].tolist() == pytest.approx([1.0, 1.0])  # 45 degrees, by its larger coordinate
    assert not attention.sampling_offsets.weight.any() and not attention.attention_weights.bias.any()


def bilinear(picture, x, y):
    """A value of ``(side, side, d)`` between cell centres; ``x``, ``y`` in 0..1; zero outside."""
    side = picture.shape[0]
    x, y = x * side - 0.5, y * side - 0.5
    total = torch.zeros(picture.shape[2])
    for column in (math.floor(x), math.floor(x) + 1):
        for row in (math.floor(y), math.floor(y) + 1):
            if 0 <= column < side and 0 <= row < side:
                total += picture[row, column] * (1 - abs(x - column)) * (1 - abs(y - row))
    return total


@torch.no_grad()
def test_attention_is_what_the_loops_say():
    attention = DeformableAttention(8, num_levels=2, num_heads=2, num_points=3)
    for parameter in attention.parameters():
        parameter.normal_(std=0.7)
    query, values = torch.randn(1, 9, 8), torch.randn(1, 2, 9, 8)
    projected = attention.value_proj(values)[0].view(2, 3, 3, 2, 4)  # level, row, column, head, channels
    offsets = attention.sampling_offsets(query)[0].view(9, 2, 2, 3, 2)
    weights = attention.attention_weights(query)[0].view(9, 2, 6).softmax(-1).view(9, 2, 2, 3)
    expected = torch.zeros(9, 8)
    for n in range(9):
        for head in range(2):
            for level in range(2):
                for point in range(3):
                    x = (n % 3 + 0.5 + offsets[n, head, level, point, 0].item()) / 3
                    y = (n // 3 + 0.5 + offsets[n, head, level, point, 1].item()) / 3
                    value = bilinear(projected[level, :, :, head], x, y)
                    expected[n, 4 * head : 4 * head + 4] += weights[n, head, level, point] * value
    torch.testing.assert_close(attention(query, values)[0], attention.output_proj(expected), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_autocast_leaves_the_reading_in_float32():
    attention = DeformableAttention(8, num_levels=2, num_heads=2, num_points=3)
    for projection in (attention.value_proj, attention.output_proj):
        projection.weight.copy_(torch.eye(8))
    attention.sampling_offsets.bias.copy_(torch.randint(-8, 9, (24,)) / 4)  # exact in bfloat16
    query, values = torch.randn(1, 9, 8), torch.randn(1, 2, 9, 8).bfloat16().float()
    with torch.autocast("cpu", torch.bfloat16):
        read = attention(query, values)
    assert torch.equal(read, attention(query, values).bfloat16())  # rounded once, at the end


@torch.no_grad()
def test_the_fusion_is_its_formula():
    fusion = build_fusion("mmfuser", OPTIONS, SMALL)
    for parameter in fusion.parameters():
        parameter.normal_(std=0.5)
    layers = random_layers(fusion)
    base, shallow = layers.patches[:, 2], layers.patches[:, :2]
    details = fusion.cross(fusion.query_norm(base), fusion.value_norm(shallow))
    normed = fusion.self_norm(details)
    details = details + fusion.gamma_2.weight * fusion.own(normed, normed[:, None])
    torch.testing.assert_close(fusion(layers, None).features, base + fusion.gamma_1.weight * details)


@pytest.mark.parametrize(
    ("kwargs", "dims", "told"),
    [
        ({"num_points": 0}, SMALL, "num_points 0"),
        ({"num_heads": 3}, SMALL, "num_heads 3 does not divide the vision width 8"),
        ({"layers": [5]}, SMALL, "at least one shallower layer"),
        ({"num_heads": 2}, FusionDims(6, 8, 10, None), "a square grid"),
    ],
)
def test_options_that_do_not_fit(kwargs, dims, told):
    with pytest.raises(ValueError, match=told):
        build_fusion("mmfuser", kwargs, dims)
