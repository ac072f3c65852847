"""What the studies read of a tower: every hidden state, kept on disk, and any means over them."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from igva.study.readout import LayerFeatures
from igva.testing import ENSEMBLE, tiny_model, tiny_processor


@pytest.mark.parametrize("tower", ["clip", ENSEMBLE])
@torch.no_grad()
def test_means_of_single_layers_are_the_models(tower, picture, tmp_path, monkeypatch):
    monkeypatch.setenv("IGVA_HOME", str(tmp_path / "home"))
    picture(1).save(tmp_path / "a.png")
    model = tiny_model(tower=tower)
    processor = tiny_processor(model)
    taps = [(0,), (1, 2), (4,), (2, 3)]
    features = LayerFeatures(model, processor)
    assert features.num_layers == 4
    features.fill([tmp_path / "a.png"])
    expected = model.model.encode_image_layers(processor.prepare_images([Image.open(tmp_path / "a.png")]), taps)
    model.model.vision_tower.forward = None
    found = features([tmp_path / "a.png"], taps)
    assert found.patches.shape == (1, 4, 4, 32)
    torch.testing.assert_close(found.patches, expected.patches, atol=0.1, rtol=0.1)
    torch.testing.assert_close(found.descriptors, expected.descriptors, atol=0.1, rtol=0.1)
