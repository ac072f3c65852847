"""Encoders of timm: they run where it is installed, and it is named where it is not."""

from __future__ import annotations

import importlib.util
import json

import pytest
import torch

from igva import timm_models
from igva.ensembles import ensemble_config, load_ensemble
from igva.errors import UserError
from igva.model.vision_ensemble import EnsembleVisionModel, prepare_pixels
from igva.model.vision_layers import run_tower

needs_timm = pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")


@pytest.mark.parametrize("entry", ["timm:resnet18", {"source": "timm:vit_tiny_patch16_224", "layers": [1]}])
def test_the_extra_is_named_where_timm_is_missing(monkeypatch, entry):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "timm" else find(name))
    with pytest.raises(UserError, match=r"^timm:\S+ needs the package timm: pip install 'igva\[timm\]'$"):
        ensemble_config([entry])


@pytest.fixture
def no_download(monkeypatch):
    """timm's pretrained weights are random ones: nothing is fetched."""
    import timm

    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained=False, **kwargs: create(name, **kwargs))


@needs_timm
def test_layers_and_pixels_are_timms():
    config = ensemble_config([{"source": "timm:resnet18", "image_size": 64}, "timm:vit_tiny_patch16_224"], grid=7)
    resnet, vit = config.parts()
    assert (resnet.layers, resnet.sizes) == ([1, 2, 3, 4, 5], [64, 64, 128, 256, 512])
    assert (vit.layers, vit.sizes, vit.image_size) == (list(range(1, 13)), [192] * 12, 224)
    assert (config.hidden_size, config.image_size) == (512, 224)
    assert resnet.image_mean == pytest.approx([0.485, 0.456, 0.406]) and vit.image_mean == [0.5] * 3
    assert config.layer_names[4:6] == ["resnet18.5", "vit_tiny_patch16_224.1"]


@needs_timm
@torch.no_grad()
def test_a_layer_is_an_entry_of_forward_intermediates(no_download, tmp_path):
    entries = [
        {"source": "timm:resnet18", "image_size": 64, "layers": [2, 5]},
        {"source": "timm:vit_tiny_patch16_224", "image_size": 32, "layers": [12]},
    ]
    tower = load_ensemble(entries, grid=2)
    tower.save_pretrained(tmp_path)
    loaded = EnsembleVisionModel.from_pretrained(tmp_path)
    pixels = torch.rand(2, 3, 64, 64)
    options = {"num_layers": 3, "num_patches": 4, "layers": [1, 2, 3]}
    got = run_tower(tower, pixels, [(1,), (2,), (3,)], **options)
    again = run_tower(loaded, pixels, [(1,), (2,), (3,)], **options)
    torch.testing.assert_close(again.patches, got.patches, atol=1e-5, rtol=1e-5)
    for place, encoder, part, entry in ((1, 0, 0, 4), (2, 1, 1, 11)):
        own = tower.encoders[encoder].timm_model.forward_intermediates(prepare_pixels(pixels, tower.parts[part]))[1]
        assert own[entry].shape[2:] == (2, 2)  # the grid
        maps = own[entry].flatten(2).transpose(1, 2)
        expected = tower.adapters[place].fit(maps)
        torch.testing.assert_close(got.patches[:, place], expected, atol=1e-4, rtol=1e-4)


@needs_timm
@torch.no_grad()
def test_a_checkpoint_of_timm_on_the_hub(tmp_path):
    """Its folder: timm's own config, with the pixels in it, and timm's own names of tensors."""
    import timm
    from safetensors.torch import save_file

    network = timm.create_model("resnet18").eval()
    pixels = {"input_size": [3, 64, 64], "mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.25], "interpolation": "bicubic"}
    config = {"architecture": "resnet18", "num_classes": 1000, "pretrained_cfg": {**pixels, "crop_pct": 1.0}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(network.state_dict(), tmp_path / "model.safetensors", metadata={"format": "pt"})
    tower = load_ensemble([{"source": str(tmp_path), "layers": [5]}])
    (part,) = tower.parts
    assert (part.name, part.image_size, part.image_mean, part.sizes) == ("resnet18", 64, [0.1, 0.2, 0.3], [512])
    picture = torch.rand(1, 3, 64, 64)
    expected = network.forward_features(prepare_pixels(picture, part)).flatten(2).transpose(1, 2)
    got = run_tower(tower, picture, [(1,)], num_layers=1, num_patches=4, layers=[1]).patches[:, 0]
    torch.testing.assert_close(got, tower.adapters[0].fit(expected), atol=1e-4, rtol=1e-4)


@needs_timm
def test_what_timm_does_not_know_is_one_line(monkeypatch):
    for name, message in (("resnet1801", "has no model 'resnet1801'"), ("resnet18.no_such", "no pretrained weights")):
        with pytest.raises(UserError, match=message) as caught:
            ensemble_config([f"timm:{name}"])
        assert "\n" not in str(caught.value)
    import timm

    def fail(*args, **kwargs):
        raise OSError("no way to the hub\nat all")

    config = ensemble_config(["timm:resnet18"]).parts()[0].config
    monkeypatch.setattr(timm, "create_model", fail)
    from transformers import AutoConfig

    with pytest.raises(UserError, match=r"^the weights of timm:resnet18 cannot be fetched: no way to the hub$"):
        timm_models.load_timm("timm:resnet18", AutoConfig.for_model(**config))
