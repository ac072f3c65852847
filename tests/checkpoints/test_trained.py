"""The file of what was trained: written whole or not at all, and fatal where it does not fit."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from igva.checkpoints.trained import (
    apply_trained,
    read_trained,
    restore_lora,
    restore_trained,
    save_trained,
)
from igva.eight_bits import from_int8, to_int8
from igva.errors import UserError
from igva.testing import tiny_model
from igva.train.arguments import LoraArguments
from igva.train.stages import add_lora


@pytest.fixture
def adapted():
    """A model with LoRA on the language model, every factor random, and the projector open."""
    model = tiny_model().requires_grad_(False)
    add_lora(model, LoraArguments(rank=2, alpha=6))
    model.model.projector.requires_grad_(True)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name or "projector" in name:
                parameter.normal_(std=0.2)
    return model


def inputs():
    torch.manual_seed(3)
    return {
        "input_ids": torch.tensor([[5, 3, 3, 3, 3, 9, 10]]),
        "pixel_values": torch.randn(1, 3, 28, 28),
        "instruction_embeds": torch.randn(1, 24),
    }


def test_merged_equals_unmerged(adapted, tmp_path):
    save_trained(adapted, tmp_path / "t.safetensors", lora_scale=3.0)
    plain = tiny_model()
    assert not torch.allclose(plain(**inputs()).logits, adapted(**inputs()).logits, atol=1e-3)
    apply_trained(plain, tmp_path / "t.safetensors")
    torch.testing.assert_close(plain(**inputs()).logits, adapted(**inputs()).logits, atol=1e-4, rtol=1e-4)


def test_restore_is_exact(adapted, tmp_path):
    save_trained(adapted, tmp_path / "t.safetensors", lora_scale=3.0)
    before = adapted(**inputs()).logits
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.zero_()
    restore_trained(adapted, tmp_path / "t.safetensors")
    assert torch.equal(adapted(**inputs()).logits, before)


def test_factors_can_be_left_out_and_taken_over(adapted, tmp_path):
    file = tmp_path / "t.safetensors"
    save_trained(adapted, file, lora_scale=3.0)
    plain, start = tiny_model(), tiny_model().state_dict()
    apply_trained(plain, file, lora=False)
    changed = {name for name, value in plain.state_dict().items() if not torch.equal(value, start[name])}
    assert changed and all(name.startswith("model.projector.") for name in changed)
    add_lora(plain, LoraArguments(rank=2, alpha=6))
    restore_lora(plain, file, 3.0)
    torch.testing.assert_close(plain(**inputs()).logits, adapted(**inputs()).logits, atol=1e-5, rtol=1e-5)
    other = tiny_model()
    add_lora(other, LoraArguments(rank=1, alpha=3))
    for model, scale in ((other, 3.0), (plain, 2.0)):
        with pytest.raises(UserError, match=r"give the same lora\.rank and lora\.alpha"):
            restore_lora(model, file, scale)


def test_misfits_are_fatal(adapted, tmp_path):
    file = tmp_path / "t.safetensors"
    save_trained(adapted, file, lora_scale=3.0)
    tensors = load_file(file)
    save_file({**tensors, "projector.linear_9.weight": torch.zeros(2)}, tmp_path / "odd.safetensors")
    with pytest.raises(UserError, match=r"projector\.linear_9\.weight has no counterpart"):
        apply_trained(tiny_model(), tmp_path / "odd.safetensors")
    with pytest.raises(UserError, match="was made by another recipe"):
        restore_trained(adapted, tmp_path / "odd.safetensors")
    with pytest.raises(UserError, match="does not exist"):
        read_trained(tmp_path / "none.safetensors")


def test_nothing_half_written(adapted, tmp_path, monkeypatch):
    file = tmp_path / "t.safetensors"
    save_trained(adapted, file, lora_scale=3.0)
    before = file.read_bytes()

    def killed(*args, **kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr("igva.files.os.fsync", killed)
    with pytest.raises(OSError, match="No space left"):
        save_trained(adapted, file, lora_scale=1.0)
    assert file.read_bytes() == before


def test_eight_bits_are_close_and_a_quarter_of_the_size(adapted, tmp_path):
    save_trained(adapted, tmp_path / "t.safetensors", lora_scale=3.0)
    whole, _ = read_trained(tmp_path / "t.safetensors")
    save_file(to_int8(whole), tmp_path / "small.safetensors", metadata={"lora_scale": "3.0"})
    small, scale = read_trained(tmp_path / "small.safetensors")
    assert scale == 3.0 and small.keys() == whole.keys()
    for name, value in whole.items():
        most = value.abs().amax(dim=-1, keepdim=True)
        assert ((small[name].float() - value).abs() <= 0.0041 * most + 1e-12).all(), name
    plain = tiny_model()
    apply_trained(plain, tmp_path / "small.safetensors")
    gap = (plain(**inputs()).logits - adapted(**inputs()).logits).abs().max()
    assert 0 < gap < 0.05 * adapted(**inputs()).logits.abs().max()


def test_a_row_of_zeros_stays_zero():
    assert not from_int8(to_int8({"a": torch.zeros(2, 3)}))["a"].any()
