"""Packed samples are the same samples: their losses and gradients are those of a row each."""

from __future__ import annotations

import random
from itertools import combinations

import pytest
import torch
from torch import nn
from transformers import AttentionInterface

from igva.data.collate import Collator
from igva.data.labels import IGNORE, encode_supervised
from igva.data.packing import first_fit_decreasing, pack_rows
from igva.errors import UserError
from igva.model.fusions import fusion_names
from igva.testing import LANGUAGE_MODELS, tiny_model, tiny_processor

TOKENS = 128

# pictures and turns of each sample: several pictures, none, several turns, a long and a very short text
CHATS = {
    "one": (1, ["What is it?", "A cat."]),
    "two": (2, ["Which is larger?", "The left one, by far.", "Sure?", "Yes."]),
    "text": (0, ["Hello", "Hi."]),
    "long": (1, ["Tell me all about it, please.", "There is a small house " * 2]),
    "short": (0, ["?", "!"]),
    "three": (3, ["Compare.", "Same."]),
}


def make_sample(processor, name, picture):
    images, turns = CHATS[name]
    chat = [
        {"role": ("user", "assistant")[i % 2], "content": [{"type": "text", "text": text}]}
        for i, text in enumerate(turns)
    ]
    chat[0]["content"] = [{"type": "image", "image": None}] * images + chat[0]["content"]
    ids, labels = encode_supervised(processor, chat)
    sample = {"id": name, "source": name, "images": images, "input_ids": ids, "labels": labels}
    if images:
        seed = 10 * len(name) + images
        sample["pixel_values"] = processor.prepare_images([picture(seed + i) for i in range(images)])
        if processor.use_instructions:
            sample["instruction_turns"] = [processor.user_turns(chat)] * images
    return sample


@pytest.fixture
def setup(picture):
    """``setup(names, **model)`` → model, processor, samples."""

    def make(names=tuple(CHATS), **kwargs):
        model = tiny_model(**kwargs)
        for frozen in (model.model.vision_tower, model.model.instruction_encoder):  # its dropout stays off then
            frozen.requires_grad_(False)
        processor = tiny_processor(model)
        return model, processor, [make_sample(processor, name, picture) for name in names]

    return make


def inputs_of(batch):
    return {name: value for name, value in batch.items() if name not in ("ids", "sources", "bad_images")}


def losses(model, batch):
    """Sample id → mean loss of its learnt tokens, from the logits of all positions."""
    inputs = inputs_of(batch)
    labels = inputs.pop("labels")
    logits = model(**inputs).logits
    each = nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="none", ignore_index=IGNORE
    ).view(labels.shape[0], -1)
    each = nn.functional.pad(each, (1, 0))  # the loss of a token stands at the token
    bounds = batch.get("cu_seq_lens_q")
    if bounds is None:
        bounds = torch.arange(0, labels.numel() + 1, labels.shape[1])
    found = []
    for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        learnt = labels.flatten()[start:end] != IGNORE
        if learnt.any():  # padding at a row's end has nothing to learn
            found.append(each.flatten()[start:end][learnt].mean().item())
    return dict(zip(batch["ids"], found, strict=True))


def gradients(model, batch, count):
    model.zero_grad()
    model.train()
    model(**inputs_of(batch), supervised_logits_only=True, num_items_in_batch=count).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same(model, processor, samples, pack_tokens=TOKENS):
    plain, packed = Collator(processor)(samples), Collator(processor, pack_tokens=pack_tokens)(samples)
    assert packed["input_ids"].shape[0] < len(samples)
    assert losses(model, packed) == pytest.approx(losses(model, plain), abs=1e-5)
    count = int((plain["labels"] != IGNORE).sum())
    assert count == int((packed["labels"] != IGNORE).sum())
    expected, got = gradients(model, plain, count), gradients(model, packed, count)
    assert expected.keys() == got.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(got[name], gradient, atol=1e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("language", LANGUAGE_MODELS)
def test_losses_and_gradients(language, attention, setup):
    model, processor, samples = setup(language=language)
    model.set_attn_implementation(attention)
    assert_same(model, processor, samples)


@pytest.mark.parametrize("fusion", fusion_names())
def test_every_fusion(fusion, setup):
    assert_same(*setup(fusion=fusion))


@pytest.mark.parametrize(
    "names", [("one", "two", "three"), ("text", "short"), ("text", "one")], ids=["pictures", "text", "mixed"]
)
def test_modalities(names, setup):
    assert_same(*setup(names), pack_tokens=256)


def test_gradient_checkpointing(setup):
    model, processor, samples = setup()
    expected = gradients(model, Collator(processor, TOKENS)(samples), 50)
    model.gradient_checkpointing_enable()
    got = gradients(model, Collator(processor, TOKENS)(samples), 50)
    for name, gradient in expected.items():
        torch.testing.assert_close(got[name], gradient, atol=1e-5, rtol=1e-4)


def test_with_the_cache_switched_on_in_the_configuration(setup):
    """transformers does not look for packed samples if there is a cache: the batch must switch it off itself."""
    model, processor, samples = setup()
    assert model.model.language_model.config.use_cache
    batch = Collator(processor, TOKENS)(samples)
    expected = losses(model, Collator(processor)(samples))
    assert losses(model, batch) == pytest.approx(expected, abs=1e-5)
    assert losses(model, {**batch, "use_cache": True}) != pytest.approx(expected, abs=1e-3)


def test_attention_by_the_bounds_alone(setup):
    """Flash attention gets no mask and, with several rows, only the bounds: an attention that reads these is right."""

    def by_bounds(module, query, key, value, attention_mask, scaling, cu_seq_lens_q, max_length_q, **kwargs):
        assert attention_mask is None
        rows, heads, width, dim = query.shape
        groups = module.num_key_value_groups
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
        flat = [x.transpose(1, 2).reshape(rows * width, heads, dim).transpose(0, 1) for x in (query, key, value)]
        spans = list(zip(cu_seq_lens_q[:-1].tolist(), cu_seq_lens_q[1:].tolist(), strict=True))
        assert max(end - start for start, end in spans) == max_length_q
        parts = [
            nn.functional.scaled_dot_product_attention(*(x[:, start:end] for x in flat), scale=scaling, is_causal=True)
            for start, end in spans
        ]
        return torch.cat(parts, dim=1).transpose(0, 1).reshape(rows, width, heads, dim), None

    AttentionInterface.register("by_bounds", by_bounds)
    model, processor, samples = setup()
    batch = Collator(processor, TOKENS)(samples)
    assert batch["input_ids"].shape[0] > 1
    expected = losses(model, batch)
    model.model.language_model.config._attn_implementation = "by_bounds"
    assert losses(model, batch) == pytest.approx(expected, abs=1e-5)


def test_rows_are_whole_samples_in_the_pictures_order(setup):
    _, processor, samples = setup()
    batch = Collator(processor, TOKENS)(samples)
    by_id = {sample["id"]: sample for sample in samples}
    flat = batch["input_ids"].flatten().tolist()
    spans = list(zip(batch["cu_seq_lens_q"][:-1].tolist(), batch["cu_seq_lens_q"][1:].tolist(), strict=True))
    pieces = [flat[a:b] for a, b in spans]
    pieces = [piece for piece in pieces if set(piece) != {processor.tokenizer.pad_token_id}]
    assert pieces == [by_id[name]["input_ids"] for name in batch["ids"]]
    pictures = [by_id[name] for name in batch["ids"] if by_id[name]["images"]]
    assert torch.equal(batch["pixel_values"], torch.cat([sample["pixel_values"] for sample in pictures]))
    assert batch["sources"] == [sample["id"] for sample in pictures for _ in range(sample["images"])]
    turns = [row for sample in pictures for row in sample["instruction_turns"]]
    assert batch["instruction_input_ids"].tolist() == processor.encode_instructions(turns)["instruction_input_ids"]


def test_what_a_packed_batch_holds(setup):
    _, processor, samples = setup()
    batch = Collator(processor, TOKENS)(samples)
    rows, width = batch["input_ids"].shape
    assert width <= TOKENS and "attention_mask" not in batch
    assert batch["position_ids"].shape == batch["labels"].shape == (rows, width)
    starts = batch["position_ids"] == 0
    assert starts[:, 0].all()
    assert (batch["labels"][starts] == IGNORE).all()
    assert batch["cu_seq_lens_q"].dtype == torch.int32
    assert batch["cu_seq_lens_q"][-1] == rows * width


def test_a_sample_that_fits_no_row(setup):
    _, processor, samples = setup()
    longest = max(len(sample["input_ids"]) for sample in samples)
    Collator(processor, longest)(samples)
    with pytest.raises(UserError, match=r"sample \w+ has \d+ tokens, more than data\.pack_tokens \d+: raise it"):
        Collator(processor, longest - 1)(samples)


@pytest.mark.parametrize("seed", range(20))
def test_rows(seed):
    draw = random.Random(seed)
    lengths = [draw.randint(1, 100) for _ in range(draw.randint(1, 40))]
    capacity = draw.randint(max(lengths), 200)
    first, rows = first_fit_decreasing(lengths, capacity), pack_rows(lengths, capacity)
    filled = [sum(lengths[i] for i in row) for row in rows]
    filled_first = [sum(lengths[i] for i in row) for row in first]
    for packed in (first, rows):
        assert sorted(i for row in packed for i in row) == list(range(len(lengths)))
    assert all(a + b > capacity for a, b in combinations(filled_first, 2))  # no two could be one
    assert len(rows) <= len(first) and max(filled) <= max(filled_first) <= capacity
    assert pack_rows(lengths, capacity) == rows


def test_first_fit_decreasing():
    assert first_fit_decreasing([3, 7, 3, 5, 2], 10) == [[1, 0], [3, 2, 4]]


def test_rows_are_evened_out():
    assert first_fit_decreasing([30, 30, 20, 20, 10], 100) == [[0, 1, 2, 3], [4]]
    assert pack_rows([30, 30, 20, 20, 10], 100) == [[0, 1], [2, 3, 4]]
