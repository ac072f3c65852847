"""IGVA's weights as gates: what the published sum and a plain concatenation say about it."""

import pytest
import torch

from igva.model.fusion_base import FusionDims
from igva.model.fusions import build_fusion
from igva.model.vision_layers import VisionLayers

DIMS = FusionDims(num_layers=8, vision_dim=6, num_patches=9, instruction_dim=5)
OPTIONS = {"hidden_size": 8, "num_blocks": 1, "num_heads": 2, "level_embeddings": True}


def parts(**options):
    torch.manual_seed(0)
    fusion = build_fusion("igva_concat", {**OPTIONS, **options}, DIMS).eval()
    taps = len(fusion.taps)
    return fusion, VisionLayers(torch.randn(3, taps, 9, 6), torch.randn(3, taps, 6)), torch.randn(3, 5)


@torch.no_grad()
def test_the_same_weights_as_gates():
    """With one allocator, the mean of the gated groups is the published weighted sum; the base stays as it is."""
    fusion, layers, question = parts()
    summed = build_fusion("igva", OPTIONS, DIMS).eval()
    summed.load_state_dict(fusion.state_dict())
    side_by_side, sum_of = fusion(layers, question), summed(layers, question)
    assert torch.equal(side_by_side.weights, sum_of.weights) and side_by_side.aux_loss == sum_of.aux_loss
    base, *groups = side_by_side.features.split(6, dim=-1)
    assert len(groups) == 4 and fusion.output_dim == side_by_side.features.shape[-1] == 5 * 6
    torch.testing.assert_close(torch.cat([base, torch.stack(groups).mean(0)], dim=-1), sum_of.features)


@torch.no_grad()
@pytest.mark.parametrize("per_patch", [False, True])
def test_uniform_weights_are_a_plain_concatenation(per_patch):
    fusion, layers, question = parts(uniform_start=True, per_patch=per_patch)
    features = fusion(layers, question).features
    torch.testing.assert_close(features, layers.patches.transpose(1, 2).flatten(2))


@torch.no_grad()
def test_a_patch_has_gates_of_its_own():
    fusion, layers, question = parts(per_patch=True)
    fusion.allocator.patch_logits.gate.fill_(3.0)
    out = fusion(layers, question)
    gates = out.features.split(6, dim=-1)[2] / layers.patches[:, 2]
    torch.testing.assert_close(gates, (4 * out.weights[..., 1])[..., None].expand_as(gates))
    assert out.weights.std(dim=1).max() > 1e-3
