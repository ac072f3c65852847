"""What ``auto`` comes to, on devices that multiply bfloat16 and on those that do not, and what is said of it."""

import json

import pytest
import torch

from igva.train import precision
from igva.train.arguments import load_recipe, recipe_names, recipe_text
from igva.train.plan import Mix, plan_memory
from igva.train.precision import multiplies_bfloat16, settle_precision
from igva.train.run import run
from igva.train.starting_model import build_from_recipe

CPU, GPU = torch.device("cpu"), torch.device("cuda")
AUTO = ("model.dtype=auto", "optim.bf16=auto")


@pytest.fixture
def cpu(monkeypatch):
    """``cpu(fast)``: the processor multiplies bfloat16, or does not."""
    return lambda fast: monkeypatch.setattr(precision, "multiplies_bfloat16", lambda device: fast)


@pytest.mark.parametrize("fast", [True, False])
def test_auto_is_what_the_cpu_multiplies(fast, recipe, cpu):
    cpu(fast)
    model, _ = build_from_recipe(recipe(*AUTO))
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16 if fast else torch.float32}


@pytest.mark.parametrize("fast", [True, False])
def test_run_json_has_plain_values_and_why(fast, recipe, cpu, capsys):
    cpu(fast)
    output = run(recipe(*AUTO, "optim.max_steps=1", "export=false"))
    told = json.loads((output / "run.json").read_text())
    chosen, verb = ("bfloat16", "multiplies") if fast else ("float32", "does not multiply")
    assert (told["recipe"]["model"]["dtype"], told["recipe"]["optim"]["bf16"]) == (chosen, fast)
    why = f"(auto: this CPU {verb} bfloat16)"
    assert told["precision"] == {"dtype": f"{chosen} {why}", "bf16": f"{str(fast).lower()} {why}"}
    assert f"frozen parts {chosen} {why}; autocast" in capsys.readouterr().out


def test_what_is_named_is_taken(recipe):
    named = recipe("model.dtype=bfloat16", "optim.bf16=false")
    settled, told = settle_precision(named, CPU, fast=False)
    assert settled == named and told == {"dtype": "bfloat16", "bf16": "false"}
    settled, told = settle_precision(recipe("model.dtype=float32", "optim.bf16=auto"), GPU, fast=True)
    assert (settled.model.dtype, settled.optim.bf16) == ("float32", True)
    assert told == {"dtype": "float32", "bf16": "true (auto: this GPU multiplies bfloat16)"}


def test_settled_recipes_stay(recipe):
    once, _ = settle_precision(recipe(*AUTO), CPU, fast=True)
    assert settle_precision(once, CPU, fast=False)[0] == once


@pytest.mark.parametrize("fast", [True, False])
def test_the_check(fast, monkeypatch):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: fast)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: fast or including_emulation)
    assert multiplies_bfloat16(CPU) is fast and multiplies_bfloat16(GPU) is fast


@pytest.mark.parametrize("name", recipe_names())
def test_every_packaged_recipe_says_auto(name):
    text, recipe = recipe_text(name), load_recipe(name)
    assert "  dtype: auto " in text and "  bf16: auto " in text
    assert recipe.model.dtype == recipe.optim.bf16 == "auto"


def test_a_plan_is_for_its_device(recipe, cpu):
    """A GPU is taken to multiply bfloat16; the CPU is the one that is here."""
    cpu(False)
    mix = Mix(samples=8, pictures=8, text_tokens=8)
    weights = [
        plan_memory(recipe(*settings), mix, 1, gpu)[1].weights
        for settings, gpu in ((AUTO, True), (AUTO, False), (("model.dtype=bfloat16", "optim.bf16=true"), True))
    ]
    assert weights[0] == weights[2] < weights[1]
