"""Attention sample by sample is attention under a block-diagonal mask."""

from __future__ import annotations

import pytest
import torch

from igva.testing import LANGUAGE_MODELS, tiny_model
from igva.train.packed_attention import PACKED_SDPA, use_packed_attention

LENGTHS = [[5, 9, 1], [12, 3], [15]]  # of three rows


@pytest.fixture(params=LANGUAGE_MODELS)
def model(request):
    return tiny_model(language=request.param)


def packed():
    return {
        "input_ids": torch.randint(4, 260, (3, 15)),
        "position_ids": torch.tensor([[p for length in row for p in range(length)] for row in LENGTHS]),
        "cu_seq_lens_q": torch.tensor([0, 5, 14, 15, 27, 30, 45], dtype=torch.int32),
        "use_cache": False,
    }


def logits_and_gradient(model, inputs):
    model.zero_grad()
    logits = model(**inputs).logits
    logits.square().mean().backward()
    return logits, model.lm_head.weight.grad.clone(), model.model.language_model.embed_tokens.weight.grad.clone()


def test_packed_rows(model):
    inputs = packed()
    expected = logits_and_gradient(model, inputs)
    use_packed_attention(model.model.language_model)
    for got, wanted in zip(logits_and_gradient(model, inputs), expected, strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-4)


def test_it_makes_no_use_of_the_mask(model):
    """The bounds decide: with others the result is another."""
    inputs = packed()
    use_packed_attention(model.model.language_model)
    right = model(**inputs).logits
    inputs["cu_seq_lens_q"] = torch.tensor([0, 15, 27, 30, 45], dtype=torch.int32)
    wrong = model(**inputs).logits
    torch.testing.assert_close(wrong[1:], right[1:])
    assert not torch.allclose(wrong[0, 5:], right[0, 5:], atol=1e-3)


def test_rows_of_their_own_as_before(model):
    """Validation and answers of the same model: padded batches, and generation with a cache."""
    ids = torch.randint(4, 260, (2, 8))
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    prompt = {"input_ids": ids, "attention_mask": mask}
    logits, answer = model(**prompt).logits, model.generate(**prompt, max_new_tokens=4, do_sample=False)
    use_packed_attention(model.model.language_model)
    torch.testing.assert_close(model(**prompt).logits[mask.bool()], logits[mask.bool()], atol=1e-5, rtol=1e-4)
    assert torch.equal(model.generate(**prompt, max_new_tokens=4, do_sample=False), answer)


def test_a_sliding_window_keeps_its_mask():
    model = tiny_model(language="qwen3")
    for layer in model.model.language_model.layers:
        layer.self_attn.sliding_window = 4
    inputs = packed()
    expected = model(**inputs).logits
    use_packed_attention(model.model.language_model)
    assert torch.equal(model(**inputs).logits, expected)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_only_sdpa_is_replaced(attention):
    model = tiny_model()
    model.set_attn_implementation(attention)
    use_packed_attention(model.model.language_model)
    chosen = model.model.language_model.config._attn_implementation
    assert chosen == (PACKED_SDPA if attention == "sdpa" else "eager")


def test_it_is_not_written_to_the_checkpoint(tmp_path):
    model = tiny_model()
    use_packed_attention(model.model.language_model)
    model.save_pretrained(tmp_path)
    assert PACKED_SDPA not in (tmp_path / "config.json").read_text()
