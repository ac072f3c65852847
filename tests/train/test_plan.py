"""What `igva plan` says beforehand against what training then takes."""

import json
import os
import subprocess
import sys
import timeit
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoConfig

from igva.errors import UserError
from igva.testing import instruction_config, tiny_image_processor, tiny_tokenizer
from igva.train.arguments import load_recipe
from igva.train.fit import find_fit
from igva.train.plan import Mix, data_mix, make_plan, plan_memory

WORKER = Path(__file__).parent / "plan_worker.py"
MIX = Mix(samples=1000, pictures=1000, text_tokens=256)


def configs_only(folder, width, layers):
    """Parts without weights: what a plan reads."""
    vision = AutoConfig.for_model(
        "clip_vision_model",
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=8,
        image_size=224,
        patch_size=14,
    )
    text = AutoConfig.for_model(
        "llama",
        vocab_size=8000,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=8,
        pad_token_id=0,
        eos_token_id=2,
        tie_word_embeddings=False,
    )
    for name, config in (("vision", vision), ("text", text), ("instruction", instruction_config())):
        config.save_pretrained(folder / name)
    tiny_image_processor(224).save_pretrained(folder / "vision")
    for name in ("text", "instruction"):
        tiny_tokenizer().save_pretrained(folder / name)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two recipe files on parts without weights: one that takes hundreds of megabytes, and a small one."""
    folder = tmp_path_factory.mktemp("plan")
    found = []
    for name, width, layers in (("large", 512, 8), ("small", 64, 2)):
        configs_only(folder / name, width, layers)
        recipe = {
            "stage": "instruct",
            "output": str(folder / "run"),
            "model": {part: str(folder / name / part) for part in ("vision", "text", "instruction")}
            | {
                "dtype": "float32",
                "fusion_kwargs": {"num_groups": 2, "hidden_size": 64, "num_blocks": 1, "num_heads": 2},
            },
            "data": {"train": "none.json", "max_length": 512},
            "optim": {"batch_size": 4, "learning_rate": 1e-4, "bf16": False},
        }
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(recipe))
        found.append(path)
    return found


KINDS = {
    "whole": [],
    "lora": ["lora.rank=8"],
    "checkpointed": ["optim.gradient_checkpointing=true"],
    "cached": ["data.cache_features=true"],
    "bf16": ["optim.bf16=true", "model.dtype=bfloat16", "lora.rank=8"],
}


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak is measured as Linux tells it")
@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_memory_is_within_a_fifth_of_the_measured_peak(files, kind):
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    done = subprocess.run(
        [sys.executable, WORKER, *files, *KINDS[kind]], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    measured = json.loads(done.stdout.splitlines()[-1])["peak"]
    _, memory = plan_memory(load_recipe(str(files[0]), KINDS[kind]), MIX, devices=1, gpu=False)
    print(f"{kind}: planned {memory.total / 2**20:.0f} MiB, measured {measured / 2**20:.0f} MiB")
    assert measured > 200 * 2**20
    assert memory.total == pytest.approx(measured, rel=0.2)


def test_what_is_saved_where(files):
    """Each saving shows in the figure it saves."""
    memory = {name: plan_memory(load_recipe(str(files[1]), over), MIX, 1, True)[1] for name, over in KINDS.items()}
    assert memory["lora"].optimizer < memory["whole"].optimizer / 10
    assert memory["checkpointed"].activations < memory["whole"].activations
    quarter = memory["whole"].optimizer / 4
    for way, factor in (
        ("fsdp", 1.0),
        ("zero3", 1.5),
    ):  # DeepSpeed keeps a copy of the weights beside Adam's two states
        sharded = plan_memory(load_recipe(str(files[1]), [f"distributed={way}"]), MIX, 4, True)[1]
        assert sharded.optimizer == pytest.approx(quarter * factor, rel=0.05)


def test_several_encoders(files, tmp_path):
    """Each further tower adds its weights; the step with all of them runs on shapes alone."""
    configs_only(tmp_path / "other", 64, 4)
    vision = [str(files[1].parent / "small" / "vision"), str(tmp_path / "other" / "vision")]
    recipe = lambda *more: load_recipe(str(files[1]), [f"model.vision={json.dumps(vision)}", *more])  # noqa: E731
    one = plan_memory(load_recipe(str(files[1])), MIX, 1, True)
    two = plan_memory(recipe(), MIX, 1, True)
    other = make_plan(load_recipe(str(files[1]), [f"model.vision={vision[1]}"]), MIX)
    plan = make_plan(recipe("data.cache_features=true"), MIX)
    first = make_plan(load_recipe(str(files[1])), MIX).parameters["vision tower"][0]
    assert plan.parameters["vision tower"][0] == first + other.parameters["vision tower"][0]
    assert two[1].weights > one[1].weights
    assert plan.disk.features > 0


def test_settings_that_fit(files):
    """The overrides it names bring the recipe under the limit, and the recipe itself is above it."""
    load = lambda extra: load_recipe(str(files[0]), extra)  # noqa: E731
    whole = plan_memory(load([]), MIX, 1, True)[1].total
    limit = 0.6 * whole / 0.9
    fit = find_fit(load, MIX, limit)
    assert fit.overrides and plan_memory(load(fit.overrides), MIX, 1, True)[1].total <= 0.9 * limit


def test_nothing_is_loaded(files, monkeypatch):
    """Folders without weights are enough, and no memory of the model's size is taken."""
    monkeypatch.setattr(torch, "load", None)
    plan = make_plan(load_recipe(str(files[0])), MIX, devices=1, tflops=None, gpu=True)
    assert plan.disk.export > 0 and plan.time.steps == 250


def test_the_cpu_is_measured(files):
    """Arithmetic of a matrix product over its time, halved: what other products then take fits it."""
    plan = make_plan(load_recipe(str(files[1]), ["optim.bf16=false"]), MIX, devices=1, tflops=None, gpu=False)
    matrix = torch.ones(768, 768)
    matrix @ matrix
    seconds = min(timeit.repeat(lambda: matrix @ matrix, number=3, repeat=5)) / 3
    reached = 2 * 768**3 / seconds / 1e12
    assert reached / 8 < plan.time.tflops < reached * 2


def test_a_part_that_is_not_there_is_one_line(files):
    recipe = load_recipe(str(files[1]), ["model.text=/nowhere/at/all"])
    with pytest.raises(UserError, match="/nowhere/at/all") as caught:
        plan_memory(recipe, MIX, 1, True)
    assert "\n" not in str(caught.value)


def test_data_that_is_not_there_leaves_the_size_open(files):
    mix = data_mix(load_recipe(str(files[1])), None)
    assert mix.samples is None


def test_conversations_that_are_merged_are_fewer_and_longer(files, tmp_path):
    entries = [
        {
            "id": str(number),
            "image": "a.png" if number < 4 else "b.png",
            "conversations": [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A dog."}],
        }
        for number in range(6)
    ]
    data = tmp_path / "data.json"
    data.write_text(json.dumps(entries))
    apart, merged = (
        data_mix(load_recipe(str(files[1]), [f"data.train={data}", f"data.merge_turns={most}"])) for most in (0, 4)
    )
    assert (apart.samples, merged.samples) == (6, 2) and apart.pictures == merged.pictures == 2
    assert 2 * apart.text_tokens <= merged.text_tokens <= 4 * apart.text_tokens
