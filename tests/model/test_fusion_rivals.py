"""The rival methods against the numbers of their papers and code: layers, widths, tokens, parameters."""

from __future__ import annotations

import pytest
import torch

from igva.model.configuration_igva import IgvaConfig
from igva.model.fusion_base import FusionDims
from igva.model.fusion_external import stage_layers
from igva.model.fusions import build_fusion
from igva.model.vision_layers import VisionLayers

CLIP_L = FusionDims(num_layers=24, vision_dim=1024, num_patches=576, instruction_dim=768)
SIGLIP = FusionDims(num_layers=26, vision_dim=1152, num_patches=729, instruction_dim=768)  # so400m, last block dropped
SMALL = FusionDims(num_layers=4, vision_dim=6, num_patches=9, instruction_dim=5)


def parameters(name, dims, **kwargs):
    with torch.device("meta"):
        return sum(p.numel() for p in build_fusion(name, kwargs, dims).parameters())


def random_layers(fusion, dims, images=2):
    taps = len(fusion.taps)
    return VisionLayers(
        torch.randn(images, taps, dims.num_patches, dims.vision_dim), torch.randn(images, taps, dims.vision_dim)
    )


@pytest.mark.parametrize(
    ("name", "dims", "taps", "width", "tokens"),
    [
        ("dense_sti", CLIP_L, ((23,), (7,), (15,)), 1024, 720),
        ("dense_sci", CLIP_L, ((23,), (7,), (15,)), 3072, 576),
        ("dense_dci", CLIP_L, ((23,), tuple(range(12)), tuple(range(12, 24))), 3072, 576),
        ("external_direct", CLIP_L, ((3,), (18,), (23,)), 3072, 576),
        ("external_direct", SIGLIP, ((3,), (20,), (25,)), 3456, 729),
        ("tgif", CLIP_L, ((23,), *((layer,) for layer in range(1, 25))), 1024, 576),
    ],
)
def test_layers_widths_and_tokens_as_published(name, dims, taps, width, tokens):
    fusion = build_fusion(name, {}, dims)
    assert (fusion.taps, fusion.output_dim, fusion.num_tokens) == (taps, width, tokens)


def test_dense_connector_on_siglip():
    """Its code takes the last of 26 blocks as base, layers 7 and 15, and the halves 0-12 and 13-25."""
    sti = build_fusion("dense_sti", {"base_layer": -1, "layers": [7, 15]}, SIGLIP)
    assert sti.num_tokens == 729 + 91 + 91  # the 729th token of the further layers is dropped
    dci = build_fusion("dense_dci", {"base_layer": -1}, SIGLIP)
    assert dci.taps == ((26,), tuple(range(13)), tuple(range(13, 26))) and dci.output_dim == 3456


@pytest.mark.parametrize("name", ["dense_sti", "dense_sci", "dense_dci", "external_direct"])
def test_without_parameters(name):
    assert parameters(name, CLIP_L) == 0


def test_parameters_of_tgif():
    """2.11 M with the language model's embeddings (4096 wide) as the original has them; ours reads 768 numbers."""
    norm = 2 * 1024
    original = FusionDims(24, 1024, 576, 4096)
    assert parameters("tgif", original) == 4096 * 512 + 512 + 512 * 24 + 24 + norm == 2_112_024
    assert parameters("tgif", CLIP_L) == 768 * 512 + 512 + 512 * 24 + 24 + norm


@torch.no_grad()
def test_sti_averages_along_the_raster():
    fusion = build_fusion("dense_sti", {"pool": 2, "layers": [1, 2]}, SMALL)
    layers = random_layers(fusion, SMALL)
    out = fusion(layers, None).features
    assert out.shape == (2, 9 + 4 + 4, 6)
    assert torch.equal(out[:, :9], layers.patches[:, 0])
    torch.testing.assert_close(out[:, 9 + 1], layers.patches[:, 1, 2:4].mean(dim=1))  # straddles two rows of three
    torch.testing.assert_close(out[:, 9 + 4 + 3], layers.patches[:, 2, 6:8].mean(dim=1))  # the ninth is dropped


@pytest.mark.parametrize("name", ["dense_sci", "dense_dci", "external_direct"])
def test_channels_stand_side_by_side(name):
    fusion = build_fusion(name, {}, SMALL)
    layers = random_layers(fusion, SMALL)
    out = fusion(layers, None).features
    assert torch.equal(out, torch.cat(list(layers.patches.unbind(dim=1)), dim=-1))


@torch.no_grad()
def test_tgif_is_its_formula_and_blind_to_the_picture():
    fusion = build_fusion("tgif", {"hidden_size": 7}, SMALL)
    layers, question = random_layers(fusion, SMALL), torch.randn(2, 5)
    out = fusion(layers, question)
    weights = torch.softmax(fusion.router(question), dim=-1)
    mixed = layers.patches[:, 0] + sum(weights[:, i, None, None] * layers.patches[:, 1 + i] for i in range(4))
    torch.testing.assert_close(out.features, fusion.norm(mixed))
    other = random_layers(fusion, SMALL)
    assert torch.equal(fusion(other, question).weights, out.weights)
    assert out.aux_loss is None


def test_tgif_entropy_term():
    fusion = build_fusion("tgif", {"entropy_coef": 0.5}, SMALL)
    out = fusion(random_layers(fusion, SMALL), torch.randn(2, 5))
    mean = out.weights.mean(dim=0)
    torch.testing.assert_close(out.aux_loss, 0.5 * (mean * mean.log()).sum())


def test_layers_of_other_depths():
    assert stage_layers(24) == [3, 18, 23] and stage_layers(27) == stage_layers(26) == [3, 20, 25]
    assert stage_layers(12) == [2, 9, 11] and stage_layers(2) == [1]


@pytest.mark.parametrize(
    ("name", "kwargs", "told"),
    [
        ("dense_sti", {"pool": 10}, "pool 10 does not fit 9 patches"),
        ("dense_sci", {"layers": []}, "layers is empty"),
        ("external_direct", {"layers": []}, "layers is empty"),
        ("external_direct", {"layers": [9]}, "layer 9 does not exist"),
    ],
)
def test_options_that_do_not_fit(name, kwargs, told):
    with pytest.raises(ValueError, match=told):
        build_fusion(name, kwargs, SMALL)


def test_a_model_with_more_tokens_than_patches_takes_them_all():
    config = IgvaConfig(fusion="dense_sti", instruction_dim=8)
    assert build_fusion("dense_sti", {}, config.fusion_dims()).num_tokens == 720
