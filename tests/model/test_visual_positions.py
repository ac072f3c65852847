"""Each visual token is told where it lies; normalised layers have a say whatever their size."""

import pytest
import torch

from igva.model.modeling_igva import IgvaForConditionalGeneration
from igva.model.vision_layers import VisionLayers
from igva.model.visual_positions import VisualPositions
from igva.testing import tiny_model


@pytest.mark.parametrize("count", [64, 4, 720, 1])
@pytest.mark.parametrize("width", [32, 33])
def test_every_place_has_its_own_vector(count: int, width: int) -> None:
    weight = VisualPositions(count, width).weight
    assert weight.shape == (count, width) and weight.isfinite().all()
    assert torch.unique(weight.round(decimals=5), dim=0).shape[0] == count


def test_rows_and_columns_can_be_told_apart() -> None:
    grid = VisualPositions(64, 32).weight.detach().view(8, 8, 32)
    assert torch.allclose(grid[3, :, :16], grid[3, :1, :16].expand(8, 16))  # a row shares one half
    assert torch.allclose(grid[:, 5, 16:], grid[:1, 5, 16:].expand(8, 16))  # a column the other


def test_positions_are_added_behind_the_projector_and_saved(tmp_path) -> None:
    model = tiny_model(visual_positions=True)
    projector, features = model.model.projector, torch.randn(2, model.model.fusion.num_tokens, 1)
    features = features.expand(-1, -1, model.model.fusion.output_dim)
    assert torch.allclose(projector(features) - projector.project(features), projector.positions.weight, atol=1e-6)
    with torch.no_grad():
        projector.positions.weight.normal_()
    model.save_pretrained(tmp_path)
    loaded = IgvaForConditionalGeneration.from_pretrained(tmp_path)
    assert torch.equal(loaded.model.projector.positions.weight, projector.positions.weight)


def test_off_by_default() -> None:
    model = tiny_model()
    assert model.model.projector.positions is None and not model.config.normalize_layers


def test_normalised_layers_count_alike() -> None:
    model = tiny_model(fusion="mean", fusion_kwargs={"num_groups": 2}, normalize_layers=True)
    inner, taps = model.model, len(model.model.fusion.taps)
    width, tokens = model.config.vision.hidden_size, inner.fusion.num_tokens
    layers = VisionLayers(torch.randn(2, taps, tokens, width), torch.randn(2, taps, width))
    scale = 10.0 ** torch.arange(taps)
    larger = VisionLayers(layers.patches * scale[:, None, None], layers.descriptors * scale[:, None])
    assert torch.allclose(inner.mix(layers, None).features, inner.mix(larger, None).features, atol=1e-3)
    model.config.normalize_layers = False
    assert not torch.allclose(inner.mix(layers, None).features, inner.mix(larger, None).features, atol=1e-1)


def test_layer_means_that_are_handed_back_are_not_normalised_twice() -> None:
    model = tiny_model(fusion="mean", fusion_kwargs={"num_groups": 2}, normalize_layers=True)
    side = model.config.input_size
    first = model.model.get_image_features(torch.randn(1, 3, side, side))
    again = model.model.get_image_features(layer_patches=first.layer_patches, layer_descriptors=first.layer_descriptors)
    assert torch.equal(first.pooler_output[0], again.pooler_output[0])
    assert (first.layer_patches.std(-1) - 1).abs().max() > 1e-2  # kept as the tower gave them
