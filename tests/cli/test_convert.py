"""``igva convert``: what it prints, what it leaves behind, and what it refuses in one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from transformers import AutoModelForImageTextToText, LlavaConfig, LlavaForConditionalGeneration

from igva.checkpoints.official import Conversion
from igva.cli import main as cli
from igva.testing import text_config, vision_config

GOLDEN = Path(__file__).parent.parent / "checkpoints" / "golden_official"
TOWER = ("--vision-tower", str(GOLDEN / "clip"))

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """``run("official", SRC, DST)`` → exit code, standard output, standard error."""
    monkeypatch.setattr(cli, "VERBS", ("convert",))

    def call(*words: str | Path) -> tuple[int, str, str]:
        code = cli.entry(["convert", *map(str, words)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def refused(run: Run, tmp_path: Path) -> Callable[..., str]:
    """``refused("official", SRC, …)`` → the one line, after checking that nothing was left behind."""

    def call(kind: str, source: str | Path, *words: str | Path) -> str:
        before = sorted(tmp_path.iterdir())
        code, out, err = run(kind, source, tmp_path / "refused", *words)
        lines = [line for line in err.splitlines() if line.startswith("igva: ") and "reading" not in line]
        assert (code, out, len(lines)) == (2, "", 1), err
        assert sorted(tmp_path.iterdir()) == before
        assert err.endswith(lines[0] + "\n")
        return lines[0]

    return call


@pytest.fixture
def official(tmp_path: Path) -> Callable[..., Path]:
    """``official(key=value)`` → the golden checkpoint with its configuration changed; None takes a key away."""

    def make(**changes: Any) -> Path:
        folder = tmp_path / "official"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(GOLDEN / "checkpoint", folder)
        config = json.loads((folder / "config.json").read_text()) | changes
        (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
        return folder

    return make


@pytest.fixture
def llava(tmp_path: Path) -> Callable[..., Path]:
    """``llava(**config)`` → a tiny LLaVA; with ``weights=False`` its configuration beside a stand-in for weights."""

    def make(weights: bool = False, tower: Any = None, layers: int = 4, **config: Any) -> Path:
        folder = tmp_path / "llava"
        shutil.rmtree(folder, ignore_errors=True)
        llava_config = LlavaConfig(
            vision_config=tower or vision_config("clip", layers),
            text_config=text_config(),
            image_token_index=3,
            **config,
        )
        if weights:
            LlavaForConditionalGeneration(llava_config).save_pretrained(folder)
        else:  # a refusal must come before any weight is read
            llava_config.save_pretrained(folder)
            (folder / "model.safetensors").write_bytes(b"")
        return folder

    return make


def test_official(run: Run, tmp_path: Path) -> None:
    target = tmp_path / "new" / "igva"
    code, out, err = run("official", GOLDEN / "checkpoint", target, *TOWER)
    assert code == 0
    table = {line[:14].strip(): line[14:] for line in out.splitlines()}
    assert table["vision"] == "clip_vision_model, 24 layers, 32 wide, 56 px, 16 visual tokens"
    assert table["language"] == "llama, 2 layers, 64 wide, 321 tokens"
    assert table["fusion"] == "igva, beside layer -2"
    assert table["layer groups"] == "layers 1-6; layers 7-12; layers 13-18; layers 19-24"
    assert "384 wide" in table["instruction"]
    assert table["to train"] == "nothing"
    assert table["saved"] == str(target)
    assert f"igva: writing {target}" in err
    assert [path.name for path in target.parent.iterdir()] == ["igva"]  # no temporary folder
    model = AutoModelForImageTextToText.from_pretrained(target)
    assert f"{model.num_parameters():,}," in table["parameters"]


def test_llava(run: Run, llava: Callable[..., Path], tmp_path: Path) -> None:
    target = tmp_path / "igva"
    target.mkdir()  # empty: fine
    code, out, _ = run("llava", llava(weights=True, layers=3), target, "--num-groups", "2", "--instruction-dim", "24")
    assert code == 0
    assert "layers 1-2; layer 3" in out
    assert "24 wide" in out
    assert "the allocator and the projector" in out
    config = AutoModelForImageTextToText.from_pretrained(target).config
    assert config.fusion_kwargs == {"num_groups": 2, "base_layer": -2}


def test_the_name_of_a_single_file_does_not_matter(run: Run, official: Callable[..., Path], tmp_path: Path) -> None:
    source = official()
    (source / "model.safetensors").rename(source / "weights.safetensors")
    assert run("official", source, tmp_path / "igva", *TOWER)[0] == 0


def test_official_refusals(refused: Callable[..., str], official: Callable[..., Path], tmp_path: Path) -> None:
    assert "is not a folder" in refused("official", tmp_path / "nowhere")
    assert "igva convert llava" in refused("official", official(model_type="llava"), *TOWER)
    assert "'llava_mpt'" in refused("official", official(model_type="llava_mpt"), *TOWER)
    for name in ("vit_aggregate_groups", "vit_base_layer", "sentence_embed_dim", "aggregator_num_heads"):
        assert f"has no {name}" in refused("official", official(**{name: None}), *TOWER)
    for changes in (
        {"mm_projector_type": "linear"},
        {"mm_patch_merge_type": "spatial_unpad"},
        {"mm_vision_select_feature": "cls_patch"},
        {"mm_use_im_start_end": True},
        {"image_aspect_ratio": "anyres"},
    ):
        (name,) = changes
        assert f"{name} " in refused("official", official(**changes), *TOWER)
    for groups in ("four", "[1, 2]", "[['a']]"):
        assert "list of lists" in refused("official", official(vit_aggregate_groups=groups), *TOWER)
    for groups, words in (("[[1], [1, 2]]", "overlap"), ("[[25]]", "layer 25"), ("[]", "empty")):
        assert words in refused("official", official(vit_aggregate_groups=groups), *TOWER)
    assert "layer -30" in refused("official", official(vit_base_layer=-30), *TOWER)
    assert "--vision-tower" in refused("official", official(mm_vision_tower="gone"))
    assert "--instruction-encoder" in refused("official", official(), *TOWER, "--instruction-encoder", tmp_path / "no")
    assert "no embedded:nothing" in refused("official", official(), *TOWER, "--instruction-encoder", "embedded:nothing")
    (source := official()).joinpath("adapter_config.json").write_text("{}")
    assert "LoRA" in refused("official", source, *TOWER)


def test_llava_refusals(refused: Callable[..., str], llava: Callable[..., Path], tmp_path: Path) -> None:
    siglip = vision_config("siglip")
    assert "vision_feature_layer is empty" in refused("llava", llava(vision_feature_layer=[]))
    assert "layer -9" in refused("llava", llava(vision_feature_layer=[-2, -9]))
    assert "'full' keeps the CLS token" in refused("llava", llava(vision_feature_select_strategy="full"))
    assert "'default' drops a patch" in refused("llava", llava(tower=siglip))
    assert "pixtral is not supported" in refused("llava", llava(tower={"model_type": "pixtral"}))
    assert "--num-groups from 1 to 3" in refused("llava", llava(layers=3))
    quantized = llava()
    config = json.loads((quantized / "config.json").read_text())
    settings = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    (quantized / "config.json").write_text(json.dumps(config | {"quantization_config": settings}))
    assert "is quantized" in refused("llava", quantized)
    text_config().save_pretrained(tmp_path / "llama")
    (tmp_path / "llama" / "model.safetensors").write_bytes(b"")
    assert "is a llama, not a llava" in refused("llava", tmp_path / "llama")
    assert "cannot be loaded" in refused("llava", llava())  # the weights are damaged
    assert "cannot be loaded" in refused("llava", "nobody/nothing")


@pytest.mark.parametrize("kind", ["official", "llava"])
@pytest.mark.parametrize("pickled", ["pytorch_model.bin", "mm_projector.bin"])
def test_pickles_are_never_opened(
    refused: Callable[..., str],
    official: Callable[..., Path],
    llava: Callable[..., Path],
    kind: str,
    pickled: str,
) -> None:
    source = official() if kind == "official" else llava()
    (source / "model.safetensors").unlink()
    torch.save(_Bomb(), source / pickled)
    line = refused(kind, source, *(TOWER if kind == "official" else ()))
    assert pickled in line and "safetensors" in line


class _Bomb:
    """Says so when it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return _explode, ("unpickled",)


def _explode(message: str) -> None:
    raise AssertionError(message)


def test_what_is_there_is_never_overwritten(run: Run, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for target in ("full", "file"):
        code, _, err = run("official", GOLDEN / "checkpoint", tmp_path / target, *TOWER)
        assert (code, err.count("\n")) == (2, 1) and "exists already" in err
    code, _, err = run("official", GOLDEN / "checkpoint", tmp_path / "file" / "igva", *TOWER)
    assert code == 2 and "cannot be written" in err.splitlines()[-1]
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "full", "mine"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("I/O error: os error 28")])
def test_a_full_disk_leaves_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def half(self: Conversion, folder: Path) -> None:
        (folder / "model.safetensors").write_text("half")
        raise error

    monkeypatch.setattr(Conversion, "save", half)
    code, _, err = run("official", GOLDEN / "checkpoint", tmp_path / "igva", *TOWER)
    assert code == 2 and "cannot be written" in err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_somebody_else_was_faster(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def late(self: Conversion, folder: Path) -> None:
        (tmp_path / "igva").mkdir()
        (tmp_path / "igva" / "theirs").write_text("theirs")

    monkeypatch.setattr(Conversion, "save", late)
    code, _, err = run("official", GOLDEN / "checkpoint", tmp_path / "igva", *TOWER)
    assert code == 2 and "exists already" in err
    assert [path.name for path in tmp_path.rglob("*")] == ["igva", "theirs"]


@pytest.mark.parametrize("words", [(), ("official",), ("official", "a"), ("llava", "a"), ("llama", "a", "b")])
def test_usage(run: Run, words: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(*words)
    assert stopped.value.code == 2
