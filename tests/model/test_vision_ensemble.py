"""Several encoders as one tower: places, widths, names, what runs and what does not, and what is refused."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from transformers import AutoModel

from igva.model.efficientnet_lite import EfficientNetLiteModel
from igva.model.vision_ensemble import EnsembleVisionConfig, EnsembleVisionModel, orthonormal, prepare_pixels
from igva.model.vision_layers import run_tower
from igva.testing import ENSEMBLE, efficientnet_config, ensemble_config, tiny_model, vision_config


def encoder(name="dinov2", kind="dinov2", **settings):
    """The fields of an encoder of 28 pixels and 2×2 patches."""
    own = {"name": name, "config": vision_config(kind).to_dict(), "layers": [1, 4], "image_size": 28, "patches": 2}
    return {**own, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, **settings}


def convolutional(**settings):
    """One of 32 pixels: layers 1 to 4 are 16, 8, 8 and 8 places to the side."""
    config = efficientnet_config(word_size=32).to_dict()
    own = {"name": "net", "config": config, "layers": [1, 2, 3, 4], "image_size": 32}
    return {**own, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, **settings}


def tower_of(*encoders, **settings):
    torch.manual_seed(0)
    tower = EnsembleVisionModel(EnsembleVisionConfig(encoders=list(encoders), **settings)).eval()
    with torch.no_grad():
        for parameter in tower.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=parameter[0].numel() ** -0.5)
        for name, buffer in tower.named_buffers():
            if name.endswith("vectors"):
                buffer.normal_()
    return tower


@torch.no_grad()
def read(tower, pixels, *layers):
    """Tokens of single layers, prefix first: one ``(I, 1+N, D)`` each."""
    config = tower.config
    taps = [(layer,) for layer in layers]
    got = run_tower(
        tower,
        pixels,
        taps,
        num_layers=config.num_hidden_layers,
        num_patches=config.grid**2,
        layers=list(layers),
    )
    return torch.cat([got.descriptors[:, :, None], got.patches], dim=2).unbind(1)


def test_grid_width_and_names():
    tower = tower_of(encoder(), convolutional(layer_names={"4": "words"}), hidden_size=32, grid=4, image_size=32)
    config = tower.config
    assert (config.num_hidden_layers, config.patch_size, config.hidden_size) == (6, 8, 32)
    assert config.layer_names == ["dinov2.1", "dinov2.4", "net.1", "net.2", "net.3", "net.words"]
    for tokens in read(tower, torch.rand(2, 3, 32, 32), 1, 2, 3, 4, 5, 6):
        assert tokens.shape == (2, 17, 32)


@torch.no_grad()
def test_the_prefix_is_the_cls_token_or_the_mean_of_the_map():
    tower = tower_of(encoder(plain=[1, 4]), convolutional(plain=[4]), hidden_size=32, grid=2, image_size=32)
    pixels = torch.rand(2, 3, 32, 32)
    dinov2, net = read(tower, pixels, 2, 6)
    own = tower.encoders[0](prepare_pixels(pixels, tower.parts[0]), output_hidden_states=True).hidden_states[4]
    torch.testing.assert_close(dinov2, own)  # 2×2 patches are the grid, 32 the width: nothing is changed
    words = tower.encoders[1](prepare_pixels(pixels, tower.parts[1])).last_hidden_state
    torch.testing.assert_close(net[:, 0], words.mean(dim=(2, 3)))


@torch.no_grad()
def test_cells_are_the_mean_of_their_places():
    tower = tower_of(convolutional(layers=[4], plain=[4]), hidden_size=32, grid=4, image_size=32)
    pixels = torch.rand(1, 3, 32, 32)
    (tokens,) = read(tower, pixels, 1)
    words = tower.encoders[0](prepare_pixels(pixels, tower.parts[0])).last_hidden_state  # (1, 32, 8, 8)
    torch.testing.assert_close(tokens[0, 1 + 4 * 2 + 1], words[0, :, 4:6, 2:4].mean(dim=(1, 2)))  # row 2, column 1


@torch.no_grad()
def test_layers_are_normalised_and_turned_by_an_orthonormal_matrix():
    tower = tower_of(convolutional(layers=[2]), hidden_size=32, grid=4, image_size=32)
    pixels = torch.rand(1, 3, 32, 32)
    (tokens,) = read(tower, pixels, 1)
    torch.testing.assert_close(tokens.square().sum(-1), torch.full((1, 17), 12.0), rtol=1e-2, atol=1e-2)
    matrix = tower.adapters[0].matrix
    assert matrix.shape == (32, 12)
    torch.testing.assert_close(matrix.T @ matrix, torch.eye(12), atol=1e-5, rtol=1e-5)
    narrow = orthonormal(5, 9, seed=1)
    torch.testing.assert_close(narrow @ narrow.T, torch.eye(5), atol=1e-5, rtol=1e-5)
    assert torch.equal(narrow, orthonormal(5, 9, seed=1)) and not torch.equal(narrow, orthonormal(5, 9, seed=2))


@torch.no_grad()
def test_the_plain_layer_keeps_its_scale():
    tower = tower_of(convolutional(layers=[3, 4], plain=[4]), hidden_size=32, grid=2, image_size=32)
    pixels = torch.rand(1, 3, 32, 32)
    head, words = read(tower, pixels, 1, 2)
    tower.encoders[0].words.vectors.mul_(0.01)
    again = read(tower, pixels, 1, 2)
    assert torch.equal(again[0], head)
    torch.testing.assert_close(again[1], 0.01 * words)


@pytest.mark.parametrize("settings", [{}, {"stack": {"1": 4, "2": 2}}], ids=["averaged", "stacked"])
@torch.no_grad()
def test_one_lit_quadrant_lights_its_cells(settings):
    """Rows before columns, top before bottom, for every encoder and however its places become cells."""
    tower = tower_of(
        encoder(layers=[1]),
        convolutional(layers=[1, 2, 4], plain=[1, 2, 4], **settings),
        hidden_size=32,
        grid=4,
        image_size=32,
    )
    # Convolutions that see their own place only: what is dark stays as it is.
    for module in tower.encoders[1].modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size[0] > 1:
            middle = module.weight[..., module.kernel_size[0] // 2, module.kernel_size[1] // 2].clone()
            nn.init.zeros_(module.weight)
            module.weight[..., 0 if module.stride[0] == 2 else module.kernel_size[0] // 2, -1] = 0
            module.weight[..., module.kernel_size[0] // 2, module.kernel_size[1] // 2] = middle
    blank = torch.full((1, 3, 32, 32), 0.5)
    lit = blank.clone()
    lit[:, :, :16, 16:] = 1.0  # top right
    before, after = (read(tower, pixels, 2, 3, 4) for pixels in (blank, lit))
    for one, other in zip(before, after, strict=True):
        change = (other - one)[0, 1:].abs().amax(dim=1).view(4, 4)
        assert change[:2, 2:].min() > 1e-4
        assert change[:2, :2].max() < 1e-6 and change[2:].max() < 1e-6


@torch.no_grad()
def test_stacked_places_stay_in_order():
    """Of a cell of 2×2 places the channels are those of each place, so that a single one can be told apart."""
    tower = tower_of(convolutional(layers=[2], plain=[2], stack={"2": 2}), hidden_size=48, grid=4, image_size=32)
    pixels = torch.rand(1, 3, 32, 32)
    (tokens,) = read(tower, pixels, 1)
    assert tower.adapters[0].matrix is None  # 12 channels × 4 places are the width
    maps = tower.encoders[0](prepare_pixels(pixels, tower.parts[0]), output_hidden_states=True).hidden_states[2]
    cell = maps[0, :, 2:4, 6:8]  # row 1, column 3: (12, 2, 2)
    torch.testing.assert_close(tokens[0, 1 + 4 + 3], cell.flatten())
    torch.testing.assert_close(tokens[0, 0], maps.mean(dim=(2, 3))[0].repeat_interleave(4))


@torch.no_grad()
def test_pixels_come_as_they_are_and_each_encoder_has_its_own():
    tower = tower_of(
        encoder(image_mean=[0.1, 0.2, 0.3], image_std=[0.5, 0.25, 0.125]),
        convolutional(),
        hidden_size=32,
        grid=2,
        image_size=32,
    )
    seen = []
    for one in tower.encoders:
        one.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    tower(torch.full((1, 3, 32, 32), 0.6))
    assert [tuple(pixels.shape[2:]) for pixels in seen] == [(28, 28), (32, 32)]
    torch.testing.assert_close(seen[0][0, :, 5, 5], torch.tensor([1.0, 1.6, 2.4]))
    torch.testing.assert_close(seen[1], torch.full((1, 3, 32, 32), 0.2))


@torch.no_grad()
def test_an_encoder_not_asked_for_does_not_run():
    tower = tower_of(encoder(), convolutional(), hidden_size=32, grid=2, image_size=32)
    runs = {"dinov2": 0, "net": 0}

    def count(name):
        def note(*_):
            runs[name] += 1

        return note

    for part, one in zip(tower.parts, tower.encoders, strict=True):
        one.register_forward_hook(count(part.name))
    pixels = torch.rand(1, 3, 32, 32)
    whole = read(tower, pixels, 1, 2, 3, 4, 5, 6)
    assert runs == {"dinov2": 1, "net": 1}
    last = read(tower, pixels, 4, 6)
    assert runs == {"dinov2": 1, "net": 2}
    (first,) = read(tower, pixels, 2)
    assert runs == {"dinov2": 2, "net": 2}
    for got, expected in zip((first, *last), (whole[1], whole[3], whole[5]), strict=True):
        assert torch.equal(got, expected)


@torch.no_grad()
def test_the_model_skips_what_its_fusion_does_not_read():
    model = tiny_model("single", ENSEMBLE, fusion_kwargs={"layer": 2})
    for one in model.model.vision_tower.encoders:
        if isinstance(one, EfficientNetLiteModel):
            one.forward = None
    assert model.model.encode_image_layers(torch.rand(1, 3, 28, 28)).patches.shape == (1, 1, 4, 32)


@torch.no_grad()
def test_layer_0_is_layer_1():
    model = tiny_model("igva", ENSEMBLE)
    layers = model.model.encode_image_layers(torch.rand(2, 3, 28, 28), [(0,), (1,), (0, 3)])
    assert torch.equal(layers.patches[:, 0], layers.patches[:, 1])
    assert not torch.equal(layers.patches[:, 2], layers.patches[:, 1])
    (alone,) = model.model.encode_image_layers(torch.rand(2, 3, 28, 28), [(0,)]).patches.unbind(1)
    assert alone.isfinite().all()


@torch.no_grad()
def test_the_words_layer_is_found_and_what_a_certain_class_leaves_there():
    tower = tower_of(encoder(), convolutional(layers=[2, 4], plain=[4]), hidden_size=32, grid=2, image_size=32)
    number, vectors = tower.words_layer()
    assert (number, vectors.shape) == (4, (10, 32))
    assert torch.equal(vectors, tower.encoders[1].words.vectors)
    wider = tower_of(convolutional(layers=[4]), hidden_size=40, grid=2, image_size=32)
    wider.encoders[0].words.classifier.bias[7] = 1e4
    number, vectors = wider.words_layer()
    torch.testing.assert_close(read(wider, torch.rand(1, 3, 32, 32), number)[0][0, 3], vectors[7])
    assert tower_of(encoder(), hidden_size=32, grid=2, image_size=28).words_layer() is None
    assert tower_of(convolutional(layers=[3]), hidden_size=32, grid=2, image_size=32).words_layer() is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_it_is_saved_and_loaded(tmp_path, dtype):
    """An encoder's own config names the type of its checkpoint; the tower has one type all the same."""
    own = encoder(kind="siglip")
    own["config"]["dtype"] = "float32"
    tower = tower_of(own, convolutional(plain=[4]), hidden_size=40, grid=4, image_size=32)
    tower.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path, dtype=dtype)
    assert type(loaded) is EnsembleVisionModel
    assert loaded.config.beside_weights() == tower.config.beside_weights()
    floating = {tensor.dtype for tensor in loaded.state_dict().values() if tensor.is_floating_point()}
    assert floating == {dtype}
    tower = tower.to(dtype)
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in tower.state_dict().items())
    pixels = torch.rand(2, 3, 32, 32).to(dtype)
    for got, expected in zip(read(copy.deepcopy(loaded), pixels, 1, 4, 6), read(tower, pixels, 1, 4, 6), strict=True):
        assert got.dtype == dtype and torch.equal(got, expected)


@torch.no_grad()
def test_half_precision_is_near():
    tower = tower_of(encoder(), convolutional(plain=[4]), hidden_size=32, grid=2, image_size=32)
    pixels = torch.rand(2, 3, 32, 32)
    expected = read(tower, pixels, 1, 2, 3, 4, 5, 6)
    half = read(tower.to(torch.bfloat16), pixels.bfloat16(), 1, 2, 3, 4, 5, 6)
    for got, exact in zip(half, expected, strict=True):
        assert (got.float() - exact).abs().mean() < 0.1 * exact.std()


def test_without_weights_there_is_nothing_to_decompose():
    with torch.device("meta"):
        tower = EnsembleVisionModel(ensemble_config())
    assert {parameter.device.type for parameter in tower.parameters()} == {"meta"}
    assert {adapter.matrix.device.type for adapter in tower.adapters if adapter.matrix is not None} == {"meta"}


def test_what_the_weights_do_not_show():
    """Two towers of equal weights that give other layers are told apart."""
    one, other = (
        EnsembleVisionConfig(encoders=[encoder(layers=layers)], grid=2, image_size=28) for layers in ([1, 4], [2, 3])
    )
    assert one.beside_weights() != other.beside_weights()
    assert "config" not in one.beside_weights()[0]


def test_the_way_of_attending_can_be_changed():
    tower = tower_of(encoder(), convolutional(), hidden_size=32, grid=2, image_size=32)
    for way in ("eager", "sdpa"):
        tower.set_attn_implementation(way)
        assert tower.encoders[0].config._attn_implementation == way


def test_blocks_stay_whole_where_a_model_is_spread():
    model = tiny_model("igva", ENSEMBLE)
    assert {"Dinov2Layer", "InvertedResidual"} <= set(model.model.vision_tower._no_split_modules)
    assert {"Dinov2Layer", "LlamaDecoderLayer"} <= set(model._no_split_modules)


BAD = {
    r"two encoders of an ensemble have the same name: a, a": {"encoders": [encoder("a"), encoder("a")]},
    r"encoder b has no layer 5: choose from 1 to 4": {"encoders": [encoder("b", layers=[1, 5])]},
    r"encoder b has no layer 0": {"encoders": [encoder("b", layers=[0])]},
    r"encoder b names a layer twice": {"encoders": [encoder("b", layers=[2, 2])]},
    r"encoder b contributes no layer": {"encoders": [encoder("b", layers=[])]},
    r"encoder b sees 2×2 patches at image_size 28, not 3": {"encoders": [encoder("b", patches=3)]},
    r"a grid of 20×20 cells does not fit an image_size of 28": {"encoders": [encoder()], "grid": 20},
    r"a grid of 40×40 cells": {"encoders": [encoder()], "grid": 40},
}


@pytest.mark.parametrize("message", BAD)
def test_what_does_not_fit_is_one_line(message):
    settings = {"hidden_size": 32, "grid": 2, "image_size": 28, **BAD[message]}
    with pytest.raises(ValueError, match=message) as caught:
        EnsembleVisionConfig(**settings)
    assert "\n" not in str(caught.value)


def test_another_input_size_is_refused_by_the_model():
    with pytest.raises(ValueError, match="image_size 56 is not that of the ensemble"):
        tiny_model("igva", ENSEMBLE, image_size=56)
