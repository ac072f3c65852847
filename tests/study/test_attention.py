"""Attention of every tower: what the tower computes itself, as rows that sum to 1."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open

from igva.attention import _on_grid, layer_activity, tower_attention
from igva.errors import UserError
from igva.model.configuration_igva import IgvaConfig
from igva.model.modeling_igva import IgvaForConditionalGeneration
from igva.model.vision_ensemble import EnsembleVisionConfig, prepare_pixels
from igva.model.vision_layers import VisionLayers
from igva.serve.attention_maps import attention_maps
from igva.study.attention import layer_table, principal_colors, seen_picture, similarity, study_attention
from igva.testing import (
    ENSEMBLE,
    TOWERS,
    ensemble_config,
    instruction_config,
    text_config,
    tiny_model,
    tiny_processor,
)

PREFIX = {"clip": 1, "siglip": 0, "dinov2": 1, "dinov2_with_registers": 5, "vit": 1}


@pytest.mark.parametrize("tower", TOWERS)
def test_attention_is_the_towers_own(tower):
    model = tiny_model(tower=tower)
    pixels = torch.randn(1, 3, 28, 28)
    attention, means = tower_attention(model, pixels, [(0,), (1, 2), (4,)])
    assert attention.prefix == PREFIX[tower]
    assert attention.keys.shape == (4, 4, PREFIX[tower] + 4)  # layers, heads, tokens
    assert torch.allclose(attention.keys.sum(dim=-1), torch.ones(4, 4), atol=1e-5)
    assert attention.maps().shape == (4, 2, 2)
    vision = model.model.vision_tower
    assert vision.config._attn_implementation == "sdpa"  # as it was
    assert not any(module._forward_hooks for module in vision.modules())
    vision.set_attn_implementation("eager")
    with torch.inference_mode():
        own = torch.cat(vision(pixels, output_attentions=True).attentions)  # (L, A, S, S)
        expected = own[:, :, 0] if PREFIX[tower] else own.mean(dim=2)
        assert torch.allclose(attention.keys, expected, atol=1e-6)
        plain = model.model.encode_image_layers(pixels, [(0,), (1, 2), (4,)])
    assert torch.allclose(means.patches, plain.patches, atol=1e-5)


def test_attention_of_several_encoders_lies_on_their_common_grid():
    """Of the layers that have one; a map of 2×2 patches is on 2×2 cells what it is."""
    model = tiny_model(tower=ENSEMBLE)
    pixels = torch.rand(1, 3, 28, 28)
    attention, means = tower_attention(model, pixels, [(3,), (4,)])  # of the convolutional one alone
    assert attention.layers == (1, 2) and attention.prefix == 1
    assert attention.keys.shape == (2, 1, 5)
    assert torch.allclose(attention.keys.sum(dim=-1), torch.ones(2, 1), atol=1e-5)
    tower = model.model.vision_tower
    own = tower.encoders[0]
    assert own.config._attn_implementation == "sdpa"  # as it was
    own.set_attn_implementation("eager")
    with torch.inference_mode():
        seen = prepare_pixels(pixels, tower.parts[0])
        matrices = own(seen, output_attentions=True).attentions  # hidden states 2 and 4 of its 4 layers
        plain = model.model.encode_image_layers(pixels, [(3,), (4,)])
    for row, layer in zip(attention.keys[:, 0], (2, 4), strict=True):
        assert torch.allclose(row, matrices[layer - 1][0, :, 0].mean(dim=0), atol=1e-6)
    assert torch.allclose(means.patches, plain.patches, atol=1e-5)
    coarse = _on_grid(torch.tensor([0.2, *[0.05] * 16]), prefix=1, wanted=3, side=2)
    assert torch.allclose(coarse, torch.tensor([0.2, 0, 0, 0.2, 0.2, 0.2, 0.2]))


def test_of_convolutional_encoders_their_activity_is_shown():
    both = ensemble_config()
    vision = EnsembleVisionConfig(encoders=both.encoders[1:], hidden_size=32, grid=2, image_size=28)
    parts = {"vision_config": vision, "text_config": text_config(), "instruction_config": instruction_config()}
    model = IgvaForConditionalGeneration(IgvaConfig(**parts, fusion="mean", fusion_kwargs={"num_groups": 2}))
    attention, means = tower_attention(model, torch.rand(1, 3, 28, 28), [(1,)])
    count = vision.num_hidden_layers
    assert (
        attention.activity and attention.layers == tuple(range(1, count + 1)) and attention.keys.shape == (count, 1, 4)
    )
    assert means.patches.shape[1] == 1


def test_a_tower_is_restored_after_a_failure():
    model = tiny_model()
    with pytest.raises(ValueError):
        tower_attention(model, torch.randn(1, 3, 14, 14), [(1,)])
    assert model.model.vision_tower.config._attn_implementation == "sdpa"
    assert not any(module._forward_hooks for module in model.model.vision_tower.modules())


def test_a_tower_that_hides_its_attention():
    model = tiny_model()
    for block in model.model.vision_tower.encoder.layers:
        block.self_attn.forward = lambda hidden_states, **kwargs: (hidden_states, None)
    with pytest.raises(UserError, match="gives no attention"):
        tower_attention(model, torch.randn(1, 3, 28, 28), [(1,)])


def test_named_layers(ensemble, picture, tmp_path):
    pytest.importorskip("matplotlib")
    report = study_attention(*ensemble, picture(), tmp_path, question="What?", settings={}).read_text()
    names = ["dinov2.2", "dinov2.4"]  # of the layers that attend
    layers = json.loads((tmp_path / "layers.json").read_text())["rows"]
    assert [row[0] for row in layers] == [f"{layer} ({name})" for layer, name in enumerate(names, start=1)]
    assert "the layers are weighed: dinov2.2,4 " in report
    maps = attention_maps(ensemble[0], ensemble[1].prepare_images([picture()]))["layers"]
    assert [(each["layer"], each["name"]) for each in maps] == list(enumerate(names, start=1))
    plain = tiny_model()
    maps = attention_maps(plain, tiny_processor(plain).prepare_images([picture()]))["layers"]
    assert all(each.keys() == {"layer", "map"} for each in maps)


def test_principal_colors():
    patches = torch.randn(2, 16, 8)
    patches[0, :8] += 20 * torch.eye(8)[0]  # two kinds of patches
    colors = principal_colors(patches)
    assert colors.shape == (2, 4, 4, 3) and colors.min() >= 0 and colors.max() <= 1
    red = colors[0, ..., 0]
    assert (red[:2] - red[2:]).abs().min() > 0.5
    assert torch.allclose(principal_colors(patches * 3 + 7), colors, atol=1e-4)
    assert principal_colors(torch.ones(1, 4, 2)).abs().max() == 0


def test_similarity():
    patches = torch.randn(3, 9, 8)
    alike = similarity(patches, 1, 2)
    assert alike.shape == (3, 3, 3)
    assert torch.allclose(alike[:, 1, 2], torch.ones(3))
    expected = torch.cosine_similarity(patches[0, 7], patches[0, 5], dim=0)
    assert torch.allclose(alike[0, 2, 1], expected)


def test_layer_table():
    from igva.attention import Attention

    keys = torch.tensor([[[0.5, 0.1, 0.4, 0.0, 0.0, 0.0]], [[0.2, 0.0, 0.2, 0.2, 0.2, 0.2]]])
    table = layer_table(Attention(keys, prefix=2, layers=(1, 2)))
    assert table.columns[1:4] == ["on CLS, %", "on registers, %", "on patches, %"]
    assert table.rows[0] == [1, 50.0, 10.0, 40.0, 0.0, 25.0]
    assert table.rows[1] == [2, 20.0, 0.0, 80.0, 1.0, 50.0]


def test_seen_picture_is_the_picture(picture):
    model = tiny_model()
    processor = tiny_processor(model)
    shown = picture(1, 28, 28)
    seen = seen_picture(processor, processor.prepare_images([shown]))
    assert seen.shape == (28, 28, 3)
    expected = torch.from_numpy(np.array(shown)) / 255
    assert torch.allclose(seen, expected, atol=1e-2)


@pytest.mark.parametrize(("tower", "question"), [("clip", "What is it?"), ("siglip", None), (ENSEMBLE, "What?")])
def test_study(tower, question, picture, tmp_path):
    pytest.importorskip("matplotlib")
    model = tiny_model(tower=tower)
    shown = picture(0, 60, 30)
    study_attention(model, tiny_processor(model), shown, tmp_path, question=question, settings={"x": 1})
    names = {path.name for path in tmp_path.iterdir()}
    assert {"report.html", "attention.png", "groups.png", "layers.csv", "attention.safetensors"} <= names
    assert ("weights.png" in names) == bool(question)
    with safe_open(tmp_path / "attention.safetensors", "pt") as file:
        assert file.get_tensor("attention").shape == ((2, 1, 5) if tower == ENSEMBLE else (4, 4, PREFIX[tower] + 4))
        assert file.metadata() == {"prefix": str(PREFIX.get(tower, 1))}
        assert ("weights" in file.keys()) == bool(question)  # noqa: SIM118  (it is no dict)
    summary = " ".join(json.loads((tmp_path / "study.json").read_text())["summary"])
    assert ("layers are weighed" in summary) == bool(question)


@pytest.mark.parametrize(
    ("fusion", "options", "message"),
    [
        ("igva", {"question": "  "}, "empty"),
        ("single", {"question": "What?"}, "no layer weights"),
        ("igva", {"point": (0.5, 1.5)}, "outside the picture"),
    ],
)
def test_what_cannot_be_shown(fusion, options, message, picture, tmp_path):
    model = tiny_model(fusion)
    with pytest.raises(UserError, match=message):
        study_attention(model, tiny_processor(model), picture(), tmp_path, settings={}, **options)


def test_activity_stands_in_where_not_every_encoder_attends():
    patches = torch.zeros(1, 2, 4, 3)
    patches[0, 0, 1] = 8.0  # one patch unlike the others
    attention = layer_activity(VisionLayers(patches, patches[:, :, 0]))
    assert attention.keys.shape == (2, 1, 4) and attention.prefix == 0 and "Activity" in attention.what
    assert torch.allclose(attention.keys.sum(dim=-1), torch.ones(2, 1))
    assert attention.keys[0, 0].argmax() == 1 and torch.allclose(attention.keys[0, 0, 1], torch.tensor(0.5))
    assert torch.allclose(attention.keys[1, 0], torch.full((4,), 0.25))  # nothing stands out
