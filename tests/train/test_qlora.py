"""QLoRA: the language model in 4 bits below its adapters."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from igva.answering import load
from igva.errors import UserError
from igva.testing import tiny_tokenizer
from igva.train.merge import merge
from igva.train.run import run
from igva.train.stages import set_trainable
from igva.train.starting_model import build_from_recipe

pytest.importorskip("bitsandbytes")


@pytest.fixture
def quantized(recipe, tmp_path):
    """A recipe on a language model of shapes that 4-bit kernels take."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "llama",
        vocab_size=260,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        pad_token_id=0,
        eos_token_id=2,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "text")
    tiny_tokenizer().save_pretrained(tmp_path / "text")
    options = ("lora.quantize=nf4", f"model.text={tmp_path / 'text'}", "optim.learning_rate=1e-2")
    return lambda *more: recipe(*options, *more)


def test_trains_adapters_over_four_bits_and_merges_into_whole_weights(quantized, tmp_path, picture):
    model, _ = build_from_recipe(quantized())
    set_trainable(model, quantized())
    kinds = {type(module).__name__ for module in model.model.language_model.modules()}
    assert "Linear4bit" in kinds
    assert not any(type(module).__name__ == "Linear4bit" for module in model.model.vision_tower.modules())
    output = run(quantized("export=false"))
    tensors = load_file(output / "trained.safetensors")
    assert any(name.endswith("lora_B") and value.abs().max() > 0 for name, value in tensors.items())
    merged, _ = load(merge(output, tmp_path / "merged"))
    assert {parameter.dtype for parameter in merged.parameters()} == {torch.float32}


def test_needs_adapters(quantized):
    with pytest.raises(UserError, match=r"only be trained through adapters: set lora\.rank"):
        quantized("lora.rank=0")
