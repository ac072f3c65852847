"""The packaged recipes: the paper's numbers, and two steps of each on random parts of the same architectures."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file

from igva.answering import answer, load
from igva.cli.main import VERBS
from igva.data.templates import TEMPLATES
from igva.model.fusion_base import FusionDims
from igva.model.fusions import build_fusion
from igva.testing import save_tiny_llava, save_tiny_parts
from igva.train.arguments import load_recipe, recipe_names, recipe_summary, recipe_text
from igva.train.run import run

PAPER_SIZE = FusionDims(num_layers=24, vision_dim=1024, num_patches=576, instruction_dim=768)
SIGLIP2_SIZE = FusionDims(num_layers=27, vision_dim=1152, num_patches=729, instruction_dim=768)
SIGLIP2_DINOV2_SIZE = FusionDims(num_layers=51, vision_dim=1152, num_patches=729, instruction_dim=768)
SIXES = (tuple(range(1, 7)), tuple(range(7, 13)), tuple(range(13, 19)), tuple(range(19, 25)))


def fusion_of(recipe, dims):
    with torch.device("meta"):
        return build_fusion(recipe.model.fusion, recipe.model.fusion_kwargs, dims)


# --- what they say -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", recipe_names())
def test_header(name):
    text = recipe_text(name)
    assert text.startswith(f"# {name}: stage ") or name == "llava15_7b_retrofit"
    assert 20 < len(recipe_summary(name)) < 110
    assert f"igva train {name}\n" in text  # the exact command
    header = text.partition("\nstage:")[0]
    for verb in re.findall(r"\bigva ([a-z]+)", header):
        assert verb in VERBS, f"{name} shows `igva {verb}`"
    for other in re.findall(r"\bigva (?:train|plan) (\w+)", header):
        assert other in recipe_names()
    assert load_recipe(name).output == f"runs/{name}"


@pytest.mark.parametrize("size", ["7b", "13b"])
def test_align_is_the_papers_stage_1(size):
    recipe = load_recipe(f"llava15_{size}_align")
    model, data, optim = recipe.model, recipe.data, recipe.optim
    assert recipe.trains() == ("projector",)
    assert (model.vision, model.text) == ("openai/clip-vit-large-patch14-336", f"lmsys/vicuna-{size}-v1.5")
    assert (model.fusion, model.fusion_kwargs) == ("mean", {"num_groups": 4, "base_layer": -2})
    assert fusion_of(recipe, PAPER_SIZE).taps == ((23,), *SIXES)
    assert (data.template, data.max_length) == ("plain", 2048)
    assert (optim.learning_rate, optim.projector_lr, optim.batch_size, optim.epochs) == (1e-3, None, 256, 1)
    assert (optim.schedule, optim.warmup_ratio, optim.weight_decay, optim.max_steps) == ("cosine", 0.03, 0.0, -1)
    assert recipe.lora.rank == recipe.warm_up.steps == 0


@pytest.mark.parametrize("size", ["7b", "13b"])
def test_instruct_is_the_papers_stage_2(size):
    recipe = load_recipe(f"llava15_{size}_instruct")
    model, data, optim = recipe.model, recipe.data, recipe.optim
    assert recipe.trains() == ("fusion", "projector", "text")
    assert (model.vision, model.text) == ("openai/clip-vit-large-patch14-336", f"lmsys/vicuna-{size}-v1.5")
    assert model.instruction == "sentence-transformers/all-mpnet-base-v2"
    assert (model.fusion, model.chat_template) == ("igva", "vicuna_v1")
    kwargs = {"num_groups": 4, "base_layer": -2, "hidden_size": 1024, "num_blocks": 4, "num_heads": 4}
    assert model.fusion_kwargs == kwargs | {"balance_coef": 0.02}
    fusion = fusion_of(recipe, PAPER_SIZE)
    assert fusion.taps == ((23,), *SIXES)
    assert sum(p.numel() for p in fusion.parameters()) == 27_047_940  # counted from the published code
    assert (data.template, data.max_length, data.group_by) == ("chat", 2048, "modality_length")
    rates = (optim.learning_rate, optim.projector_lr, optim.fusion_lr)
    assert (rates, optim.batch_size, optim.epochs) == ((2e-5, None, None), 128, 1)
    assert (optim.schedule, optim.warmup_ratio, optim.weight_decay, optim.max_steps) == ("cosine", 0.03, 0.0, -1)
    assert recipe.lora.rank == 0
    assert model.init_from == load_recipe(f"llava15_{size}_align").output


def test_lora_has_llavas_settings():
    lora, whole = load_recipe("llava15_7b_instruct_lora"), load_recipe("llava15_7b_instruct")
    assert (lora.lora.rank, lora.lora.alpha, lora.lora.dropout) == (128, 256, 0.05)
    assert (lora.optim.learning_rate, lora.optim.projector_lr, lora.optim.fusion_lr) == (2e-4, 2e-5, 2e-5)
    assert (lora.model, lora.data) == (whole.model, whole.data)


def test_retrofit_leaves_the_language_model_alone():
    recipe, paper = load_recipe("llava15_7b_retrofit"), load_recipe("llava15_7b_instruct")
    assert recipe.model.retrofit == "llava-hf/llava-1.5-7b-hf"
    assert recipe.trains() == ("fusion", "projector")
    assert recipe.data == paper.data
    assert recipe.model.fusion_kwargs | {"base_layer": -2} == paper.model.fusion_kwargs


def test_modern_groups():
    for name in ("siglip2_qwen3_align", "siglip2_qwen3_instruct"):
        groups = fusion_of(load_recipe(name), SIGLIP2_SIZE).layer_groups
        assert [(group[0], group[-1]) for group in groups] == [(1, 7), (8, 14), (15, 21), (22, 27)]


def test_groups_of_two_encoders():
    for name in ("siglip2_dinov2_qwen3_align", "siglip2_dinov2_qwen3_instruct"):
        fusion = fusion_of(load_recipe(name), SIGLIP2_DINOV2_SIZE)
        assert [(group[0], group[-1]) for group in fusion.layer_groups] == [(1, 14), (15, 27), (28, 39), (40, 51)]
        assert fusion.taps[0] == (26,)  # SigLIP2's 27 layers come first


@pytest.mark.parametrize("pair", ["llava15_7b", "llava15_13b", "siglip2_qwen3", "siglip2_dinov2_qwen3", "tiny"])
def test_the_two_stages_build_the_same_projector(pair):
    align, instruct = (load_recipe(f"{pair}_{stage}") for stage in ("align", "instruct"))
    shared = ("vision", "vision_grid", "text", "image_size", "vision_pool", "normalize_layers", "visual_positions")
    for key in (*shared, "projector_hidden_size", "projector_norm"):
        assert getattr(align.model, key) == getattr(instruct.model, key)
    assert instruct.model.init_from == align.output


# --- that they run -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clip_vicuna(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip_vicuna")
    return save_tiny_parts(folder, "clip", "llama", "mpnet", layers=24, tokenizer="vicuna")


@pytest.fixture(scope="module")
def siglip2_qwen3(tmp_path_factory):
    folder = tmp_path_factory.mktemp("siglip2_qwen3")
    return save_tiny_parts(folder, "siglip", "qwen3", "mpnet", layers=27, tokenizer="qwen3")


@pytest.fixture(scope="module")
def siglip2_dinov2_qwen3(siglip2_qwen3, tmp_path_factory):
    """The same with a second encoder, whose pictures are larger; as a list, the way it is written in YAML."""
    dinov2 = save_tiny_parts(tmp_path_factory.mktemp("dinov2"), "dinov2", layers=24)["vision"]
    return siglip2_qwen3 | {"vision": f"[{siglip2_qwen3['vision']}, {{source: {dinov2}, image_size: 42}}]"}


@pytest.fixture
def shrunk(data, picture, tmp_path, monkeypatch):
    """``shrunk(name, parts, *more)`` → the recipe with other paths and sizes, and nothing else changed."""
    monkeypatch.setenv("IGVA_HOME", str(tmp_path / "home"))
    entries = []
    for i in range(4):
        picture(i, 50, 30).save(data / f"images/wide{i}.png")
        turns = [("human", "<image>\nDescribe the image concisely."), ("gpt", f"A red {i}.")]
        turns = [{"from": role, "value": text} for role, text in turns]
        entries.append({"id": f"c{i}", "image": f"images/wide{i}.png", "conversations": turns})
    (data / "captions.json").write_text(json.dumps(entries))

    def load_shrunk(name, parts, *more):
        align = name.endswith("_align")
        overrides = [
            *(f"model.{part}={path}" for part, path in parts.items() if not (align and part == "instruction")),
            f"output={tmp_path / name}",
            f"data.train={data / ('captions.json' if align else 'data.json')}",
            f"data.image_root={data}",
            "distributed=ddp",  # one process
            *("optim.batch_size=4", "optim.micro_batch_size=2", "optim.max_steps=2", "optim.logging_steps=1"),
            "optim.workers=0",
            *([] if align else ["model.fusion_kwargs.hidden_size=16"]),
            *more,
        ]
        return load_recipe(name, overrides)

    return load_shrunk


def check(recipe, picture, **options):
    """Two finite steps, and a model with the recipe's template that answers; returns what was trained."""
    output = run(recipe, **options)
    told = json.loads((output / "run.json").read_text())
    assert told["figures"]["steps"] == 2 and torch.isfinite(torch.tensor(told["figures"]["train_loss"]))
    model, processor = load(output)
    assert processor.chat_template == TEMPLATES[recipe.model.chat_template]
    weights = answer(model, processor, picture(), "What is it?", max_new_tokens=2).layer_weights
    assert len(weights) == 4 and sum(weights) == pytest.approx(1, abs=1e-2)
    tensors = load_file(output / "trained.safetensors")
    assert all(tensor.dtype == torch.float32 and tensor.isfinite().all() for tensor in tensors.values())
    return tensors


def parts_of(tensors):
    return {name.partition(".")[0] for name in tensors}


@pytest.mark.parametrize("pair", ["llava15_7b", "llava15_13b", "siglip2_qwen3", "siglip2_dinov2_qwen3"])
def test_two_stages_run(pair, shrunk, request, picture):
    parts = request.getfixturevalue("clip_vicuna" if pair.startswith("llava15") else pair)
    first = shrunk(f"{pair}_align", parts)
    projector = check(first, picture)
    assert parts_of(projector) == {"projector"}

    still = shrunk(f"{pair}_instruct", parts, f"model.init_from={first.output}", "optim.projector_lr=0")
    tensors = check(still, picture)
    assert parts_of(tensors) >= {"fusion", "projector", "language_model"}
    for name, value in projector.items():  # taken over, and at rate 0 never moved
        torch.testing.assert_close(tensors[name], value, atol=0, rtol=2**-8)  # through bfloat16


def test_lora_runs(shrunk, clip_vicuna, picture):
    first = shrunk("llava15_7b_align", clip_vicuna)
    run(first)
    tensors = check(shrunk("llava15_7b_instruct_lora", clip_vicuna, f"model.init_from={first.output}"), picture)
    assert parts_of(tensors) == {"fusion", "projector", "language_model"}
    text = [name for name in tensors if name.startswith("language_model")]
    assert text and all(name.endswith((".lora_A", ".lora_B")) for name in text)
    assert {min(tensors[name].shape) for name in text} <= {24, 48, 64, 128}


def test_retrofit_with_a_further_encoder_runs(shrunk, clip_vicuna, siglip2_qwen3, picture, tmp_path):
    parts = {"retrofit": save_tiny_llava(tmp_path / "llava", layers=24), "instruction": clip_vicuna["instruction"]}
    parts["add_vision"] = f"[{siglip2_qwen3['vision']}]"
    recipe = shrunk("llava15_7b_retrofit", parts, "model.fusion_kwargs.num_groups=2")
    tensors = check(recipe, picture)
    assert tensors["projector.linear_1.weight"][:, 32:].abs().max() > 0


def test_retrofit_runs(shrunk, clip_vicuna, picture, tmp_path):
    parts = {"retrofit": save_tiny_llava(tmp_path / "llava", layers=24), "instruction": clip_vicuna["instruction"]}
    tensors = check(shrunk("llava15_7b_retrofit", parts), picture)
    assert parts_of(tensors) == {"fusion", "projector"}
    fused_half = tensors["projector.linear_1.weight"][:, 32:]  # the tower is 32 wide
    assert fused_half.abs().max() > 0  # zero at the start
