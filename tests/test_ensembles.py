"""Several encoders put together from what users have: names, layers, grid, sizes, pixels, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoModel, ResNetConfig, ResNetModel, SwinConfig, SwinModel

import igva
from igva.ensembles import ensemble_config, load_ensemble, unnormalised_pictures
from igva.errors import UserError
from igva.testing import ENSEMBLE, SMALL_FUSION_KWARGS, save_tiny_parts, tiny_image_processor, vision_config

SMALL = SMALL_FUSION_KWARGS["igva"]


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Kind → folder: two transformers of different width, a convolutional network, and others that will not do."""
    root = tmp_path_factory.mktemp("sources")
    torch.manual_seed(0)
    wide = vision_config("dinov2")
    wide.hidden_size = 48
    networks = {
        "siglip": AutoModel.from_config(vision_config("siglip")),
        "dinov2": AutoModel.from_config(wide),
        "resnet": ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 20], depths=[1, 1], layer_type="basic")),
        "swin": SwinModel(SwinConfig(image_size=32, embed_dim=8, depths=[1, 1], num_heads=[1, 1], window_size=4)),
        "bare": AutoModel.from_config(vision_config("clip")),
    }
    for name, network in networks.items():
        network.save_pretrained(root / name)
        if name != "bare":
            tiny_image_processor(32 if name in ("resnet", "swin") else 28).save_pretrained(root / name)
    return {name: str(root / name) for name in networks}


def test_defaults(sources):
    """Every layer; the first encoder's grid; the largest width and input."""
    config = ensemble_config([sources["siglip"], {"source": sources["dinov2"], "image_size": 42}])
    siglip, dinov2 = config.parts()
    assert config.layer_names == [*(f"siglip.{i}" for i in range(1, 5)), *(f"dinov2.{i}" for i in range(1, 5))]
    assert (config.grid, config.hidden_size, config.image_size) == (2, 48, 42)
    assert (siglip.patches, dinov2.patches, siglip.image_size, dinov2.image_size) == (2, 3, 28, 42)
    assert not siglip.plain and not dinov2.plain
    processor = tiny_image_processor(28)
    assert siglip.image_mean == pytest.approx(processor.image_mean)
    assert siglip.image_std == pytest.approx(processor.image_std)


def test_what_can_be_chosen(sources):
    entries = [
        {"source": sources["dinov2"], "name": "eyes", "layers": [-1, 2]},
        {"source": sources["resnet"], "layers": [2]},
    ]
    config = ensemble_config(entries, grid=4)
    assert config.layer_names == ["eyes.4", "eyes.2", "resnet.2"]
    assert (config.grid, config.image_size, config.parts()[1].sizes) == (4, 32, [20])


def test_the_same_source_twice_gets_two_names(sources):
    where = sources["siglip"]
    config = ensemble_config([where, where, {"source": where, "name": "siglip_2"}, where])
    assert [part.name for part in config.parts()] == ["siglip", "siglip_3", "siglip_2", "siglip_4"]


def test_one_encoder_is_a_list_too(sources):
    config = ensemble_config([sources["siglip"]])
    assert (config.num_hidden_layers, config.hidden_size) == (4, 32)


def test_the_input_is_a_whole_number_of_pixels_to_the_cell(sources):
    """384 pixels and patches of 14 leave 27 to the side: the size stays. Where it cannot, the input grows a little."""
    entry = {"source": sources["siglip"], "image_size": 384}
    assert (ensemble_config([entry]).grid, ensemble_config([entry]).image_size) == (27, 384)
    uneven = ensemble_config([{"source": sources["siglip"], "image_size": 50}, sources["resnet"]], grid=8)
    assert uneven.image_size == 50 and uneven.image_size // uneven.patch_size == 8
    grown = ensemble_config([{"source": sources["resnet"], "image_size": 47}], grid=10)
    assert grown.image_size == 50


@torch.no_grad()
def test_the_weights_are_the_sources_own(sources):
    tower = load_ensemble([sources["siglip"], sources["resnet"]], grid=4)
    for encoder, name in zip(tower.encoders, ("siglip", "resnet"), strict=True):
        own = AutoModel.from_pretrained(sources[name]).state_dict()
        assert all(torch.equal(value, own[key]) for key, value in encoder.state_dict().items())
    assert not any(parameter.is_meta for parameter in tower.parameters())
    assert not any(buffer.is_meta for buffer in tower.buffers()) and not tower.training
    matrix = tower.adapters[-1].matrix  # (32, 20)
    torch.testing.assert_close(matrix.T @ matrix, torch.eye(20), atol=1e-5, rtol=1e-5)
    half = load_ensemble([sources["siglip"], sources["resnet"]], grid=4, dtype=torch.bfloat16)
    assert {value.dtype for value in half.state_dict().values() if value.is_floating_point()} == {torch.bfloat16}


@torch.no_grad()
def test_each_encoder_sees_what_its_own_image_processor_makes(sources):
    """Whatever the scale: pixels from 0 to 1 come in, those of the source's processor reach the encoder."""
    folder = Path(sources["dinov2"])
    odd = {**json.loads((folder / "preprocessor_config.json").read_text()), "rescale_factor": 1 / 127.5}
    odd |= {"image_mean": [1.0, 1.0, 0.5], "image_std": [1.0, 0.5, 2.0]}
    other = folder.parent / "odd"
    AutoModel.from_pretrained(folder).save_pretrained(other)
    (other / "preprocessor_config.json").write_text(json.dumps(odd))
    tower = load_ensemble([sources["siglip"], str(other)])
    pictures = unnormalised_pictures(tower.config)
    picture = Image.effect_noise((28, 28), 90).convert("RGB")
    seen = []
    for encoder in tower.encoders:
        encoder.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    tower(pictures(picture, return_tensors="pt")["pixel_values"])
    from transformers.models.auto.image_processing_auto import AutoImageProcessor

    for got, source in zip(seen, (sources["siglip"], str(other)), strict=True):
        expected = AutoImageProcessor.from_pretrained(source)(picture, return_tensors="pt")["pixel_values"]
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)


def test_pictures_are_padded_with_the_mean_of_the_means(sources):
    config = ensemble_config([sources["siglip"], sources["resnet"]])
    config.encoders[0]["image_mean"], config.encoders[1]["image_mean"] = [0.1, 0.2, 0.3], [0.3, 0.4, 0.3]
    assert unnormalised_pictures(config).image_mean == pytest.approx([0.2, 0.3, 0.3])


def test_build_answers_and_survives_saving(sources, picture, tmp_path):
    parts = save_tiny_parts(tmp_path / "parts")
    vision = [sources["siglip"], {"source": sources["resnet"], "layers": [1, 2]}]
    model, processor = igva.build(vision, parts["text"], parts["instruction"], fusion_kwargs=SMALL, vision_grid=4)
    assert model.config.num_patches == 16 == processor.num_image_tokens
    assert not processor.image_processor.do_normalize
    first = igva.answer(model, processor, picture(), "What?", max_new_tokens=3)
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    again = igva.answer(*igva.load(tmp_path / "model"), picture(), "What?", max_new_tokens=3)
    assert (first.answer, first.layer_weights) == (again.answer, again.layer_weights)


def test_an_assembled_tower_is_a_part_like_any_other(tmp_path, picture):
    parts = save_tiny_parts(tmp_path, ENSEMBLE)
    model, processor = igva.build(**parts, fusion_kwargs=SMALL)
    assert model.config.vision.layer_names[-1] == "efficientnet.words"
    assert igva.answer(model, processor, picture(), "What?", max_new_tokens=2).layer_weights
    with pytest.raises(UserError, match="is a tower of several encoders itself"):
        ensemble_config([parts["vision"]])


BAD = {
    "empty list": [],
    "4 names no encoder": [4],
    r"\{'name': 'a'\} names no encoder": [{"name": "a"}],
    "takes no setting 'layer': did you mean layers": [{"source": "siglip", "layer": [1]}],
    "layers of .*siglip is '1-3': a list of whole numbers": [{"source": "siglip", "layers": "1-3"}],
    "image_size of .*siglip is 28.5: a whole number": [{"source": "siglip", "image_size": 28.5}],
    r"layers of .*siglip are \[1, 9\]: choose from 1 to 4": [{"source": "siglip", "layers": [1, 9]}],
    r"layers of .*siglip are \[0\]: choose": [{"source": "siglip", "layers": [0]}],
    "encoder siglip names a layer twice": [{"source": "siglip", "layers": [4, -1]}],
    "encoder siglip contributes no layer": [{"source": "siglip", "layers": []}],
    "image_size 9 of .*siglip is less than one of its patches": [{"source": "siglip", "image_size": 9}],
    "have the same name: a, a": [{"source": "siglip", "name": "a"}, {"source": "dinov2", "name": "a"}],
    "bare has no image processor": ["bare"],
    "nowhere cannot be read": ["nobody/nowhere"],
    "swin cannot be an encoder of an ensemble: a swin gives": ["swin"],
    "there is no embedded:eyes": ["embedded:eyes"],
}


@pytest.mark.parametrize("message", BAD)
def test_what_does_not_fit_is_one_line(message, sources):
    def found(entry):
        if isinstance(entry, dict) and "source" in entry:
            return entry | {"source": sources.get(entry["source"], entry["source"])}
        return sources.get(entry, entry) if isinstance(entry, str) else entry

    with pytest.raises(UserError, match=message) as caught:
        ensemble_config([found(entry) for entry in BAD[message]])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("grid", [0, 3, 40])
def test_a_grid_finer_than_every_encoder_is_refused(grid, sources):
    with pytest.raises(UserError, match=f"vision_grid {grid} does not fit: choose from 1 to 2, the finest"):
        ensemble_config([sources["siglip"]], grid)


def test_a_grid_belongs_to_a_list(sources, tmp_path):
    with pytest.raises(UserError, match="vision_grid is the common grid of several encoders"):
        igva.build(sources["siglip"], "none", fusion_kwargs=SMALL, vision_grid=2)
