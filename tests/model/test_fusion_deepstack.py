"""Layers that enter inside the language model: where, when, and that nothing else notices."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model

from igva.model.fusion_base import FusionDims
from igva.model.fusions import build_fusion
from igva.model.modeling_igva import IgvaForConditionalGeneration
from igva.testing import tiny_model

CLIP_L = FusionDims(24, 1024, 576, None, text_dim=4096, num_text_layers=32)
KWARGS = {"layers": [1, 2]}


@pytest.fixture
def model():
    """What is added is as large as what it is added to: no answer is right without it."""
    model = tiny_model("deepstack", fusion_kwargs=KWARGS)
    with torch.no_grad():
        for projector in model.model.fusion.projectors:
            projector[3].weight.normal_(std=1.0)
    return model


def silenced(model):
    """The same model with nothing added."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for projector in model.model.fusion.projectors:
            projector[3].weight.zero_()
            projector[3].bias.zero_()
    return model


def batch(model, images=2, seed=0):
    """One picture per row, left-padded rows of different length."""
    generator = torch.Generator().manual_seed(seed)
    image = model.config.image_token_id
    rows = [[9, *[image] * 4, 20, 30, 40][: 6 + 2 * (i % 2)] for i in range(images)]
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    pixels = torch.randn(images, 3, 28, 28, generator=generator)
    return {"input_ids": ids, "attention_mask": mask, "pixel_values": pixels}


def test_layers_and_parameters_as_counted():
    with torch.device("meta"):
        fusion = build_fusion("deepstack", {}, CLIP_L)
    assert fusion.taps == ((23,), (6,), (12,), (18,)) and fusion.num_tokens == 576
    each = 2 * 1024 + (1024 * 1024 + 1024) + (1024 * 4096 + 4096)
    assert sum(p.numel() for p in fusion.parameters()) == 3 * each == 15_750_144
    twelve = build_fusion("deepstack", {}, FusionDims(12, 8, 4, None, text_dim=16, num_text_layers=3))
    assert twelve.taps == ((11,), (3,), (6,), (9,))


@pytest.mark.parametrize(
    ("kwargs", "depth", "taps", "after"),
    [
        ({"layer_map": "qwen3vl", "base_layer": -1}, 27, [27, 9, 17, 25], [0, 1, 2]),
        ({"layer_map": "qwen3vl", "base_layer": -1}, 24, [24, 6, 12, 18], [0, 1, 2]),
        ({"layer_map": "granite4"}, 27, [27, 21, 15, 9], [2, 5, 8]),
        ({"layer_map": [[4, 7], [-3, 2]]}, 24, [23, 22, 4], [1, 6]),
        ({"layers": [5, 3]}, 24, [23, 5, 3], [0, 1]),
    ],
)
def test_maps_of_shipped_models_and_of_ones_own(kwargs, depth, taps, after):
    with torch.device("meta"):
        fusion = build_fusion("deepstack", kwargs, FusionDims(depth, 8, 4, None, text_dim=16, num_text_layers=32))
    assert [tap for (tap,) in fusion.taps] == taps and fusion.after == after
    assert len(fusion.projectors) == len(after)


@pytest.mark.parametrize(
    ("kwargs", "told"),
    [
        ({"layer_map": "qwen4vl"}, "no layer_map 'qwen4vl'"),
        ({"layer_map": "qwen3vl"}, "24 and 27 layers, not of 20"),
        ({"layer_map": [[1, 2, 3]]}, "pairs"),
        ({"layer_map": []}, "pairs"),
        ({"layer_map": [[1, 0]]}, "room for 1 to 4"),
        ({"layer_map": [[1, 5]]}, "room for 1 to 4"),
        ({"layer_map": [[1, 2], [3, 2]]}, "the same language-model layer"),
        ({"layer_map": [[21, 2]]}, "layer 21"),
        ({"layer_map": "granite4", "layers": [1]}, "twice"),
    ],
)
def test_maps_that_cannot_be(kwargs, told):
    with pytest.raises(ValueError, match=told):
        build_fusion("deepstack", kwargs, FusionDims(20, 8, 4, None, text_dim=16, num_text_layers=4))


@torch.no_grad()
def test_a_map_of_pairs_is_the_list_of_layers(model):
    other = tiny_model("deepstack", fusion_kwargs={"layer_map": [[1, 1], [2, 2]]})
    other.load_state_dict(model.state_dict())
    inputs = batch(model)
    assert torch.equal(model(**inputs).logits, other(**inputs).logits)


@torch.no_grad()
def test_without_its_layers_it_is_the_single_layer(model):
    single = tiny_model("single", fusion_kwargs={"layer": -2})
    single.load_state_dict(model.state_dict(), strict=False)
    inputs = batch(model)
    logits = silenced(model)(**inputs).logits
    assert torch.equal(logits, single(**inputs).logits)
    assert (model(**inputs).logits - logits).abs().max() > 0.1


@torch.no_grad()
def test_it_is_added_after_the_first_layers_at_the_places_of_the_tokens(model):
    inputs = batch(model)
    inner, seen = model.model, {}
    features = model.get_image_features(inputs["pixel_values"])
    assert set(features.injections) == {0, 1} and features.injections[0].shape == (2, 4, 48)
    for number, layer in enumerate(inner.language_model.layers):
        layer.register_forward_pre_hook(
            lambda m, args, kwargs, n=number: seen.__setitem__(n, args[0] if args else kwargs["hidden_states"]),
            with_kwargs=True,
        )
        layer.register_forward_hook(lambda m, args, out, n=number: seen.__setitem__(f"{n}", out))
    inner.language_model.norm.register_forward_pre_hook(lambda m, args: seen.__setitem__("norm", args[0]))
    model(**inputs)
    places = inputs["input_ids"] == model.config.image_token_id
    for number, after in ((0, seen[1]), (1, seen["norm"])):
        output = seen[f"{number}"]
        added = after - (output[0] if isinstance(output, tuple) else output)
        torch.testing.assert_close(added[places].view(2, 4, 48), features.injections[number], atol=1e-5, rtol=1e-5)
        assert not added[~places].any()


@torch.no_grad()
def test_cached_and_uncached_generation_agree(model):
    inputs = batch(model, images=3)
    options = {"max_new_tokens": 6, "do_sample": False}
    cached = model.generate(**inputs, **options)
    assert torch.equal(cached, model.generate(**inputs, **options, use_cache=False))
    features = model.get_image_features(inputs.pop("pixel_values"))
    assert torch.equal(cached, model.generate(**inputs, **options, mm_encoder_outputs={"image": features}))
    assert not torch.equal(cached, silenced(model).generate(**batch(model, images=3), **options))


@torch.no_grad()
def test_every_beam_and_every_copy_has_its_pictures(model):
    inputs = batch(model, images=3)
    greedy = model.generate(**inputs, max_new_tokens=6, do_sample=False)
    copies = model.generate(**inputs, max_new_tokens=6, do_sample=True, top_k=1, num_return_sequences=2)
    assert torch.equal(copies[0::2], greedy) and torch.equal(copies[1::2], greedy)
    beams = model.generate(**inputs, max_new_tokens=6, do_sample=False, num_beams=3)
    assert not torch.equal(beams, silenced(model).generate(**inputs, max_new_tokens=6, do_sample=False, num_beams=3))
    alone = {name: value[2:] for name, value in inputs.items()}
    assert torch.equal(model.generate(**alone, max_new_tokens=6, do_sample=False, num_beams=3), beams[2:])
    two = {"input_ids": torch.cat([inputs["input_ids"][:1]] * 2, dim=1), "pixel_values": inputs["pixel_values"][:2]}
    greedy = model.generate(**two, max_new_tokens=6, do_sample=False)
    copies = model.generate(**two, max_new_tokens=6, do_sample=True, top_k=1, num_return_sequences=2)
    assert torch.equal(copies, greedy.expand(2, -1))


@torch.no_grad()
def test_a_batch_is_its_rows(model):
    inputs = batch(model, images=3)
    together = model(**inputs).logits
    for row in range(3):
        alone = {name: value[row : row + 1] for name, value in inputs.items()}
        torch.testing.assert_close(model(**alone).logits[:, -1], together[row : row + 1, -1], atol=1e-5, rtol=1e-4)


def gradients(model, inputs):
    model.train()
    model.zero_grad()
    model(**inputs, labels=inputs["input_ids"].clamp_min(4)).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_changes_nothing(model, reentrant):
    inputs = batch(model)
    plain = gradients(model, inputs)
    assert plain["model.fusion.projectors.1.3.weight"].abs().max() > 0
    getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)({"use_reentrant": reentrant})
    checkpointed = gradients(model, inputs)
    assert plain.keys() == checkpointed.keys()
    for name, value in plain.items():
        torch.testing.assert_close(checkpointed[name], value, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_two_batches_before_one_backward(model, checkpointing):
    first, second = batch(model), batch(model, seed=1)
    expected = {name: value + gradients(model, second)[name] for name, value in gradients(model, first).items()}
    if checkpointing:
        getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
    model.zero_grad()
    losses = [model(**inputs, labels=inputs["input_ids"].clamp_min(4)).loss for inputs in (first, second)]
    sum(losses).backward()
    for name, value in expected.items():
        torch.testing.assert_close(model.get_parameter(name).grad, value, atol=1e-6, rtol=1e-4)


def test_nothing_stays_behind(model):
    gradients(model, batch(model))
    blocks = model.model.language_model.layers
    assert not any(block._forward_hooks for block in blocks)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    before = [block._gradient_checkpointing_func for block in blocks]
    gradients(model, batch(model))
    assert [block._gradient_checkpointing_func for block in blocks] == before
    copy.deepcopy(model)  # an average of weights keeps a copy between steps


def test_adapters_in_the_language_model(model):
    inputs = batch(model)
    with torch.no_grad():
        expected = model(**inputs).logits
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=r".*language_model.*q_proj")).eval()
    with torch.no_grad():
        torch.testing.assert_close(adapted(**inputs).logits, expected)  # an adapter starts as nothing
    adapted(**inputs).logits.square().mean().backward()
    assert any(p.grad.abs().max() > 0 for name, p in adapted.named_parameters() if "lora_B" in name)


@torch.no_grad()
def test_samples_that_share_a_row(model):
    image, generator = model.config.image_token_id, torch.Generator().manual_seed(3)
    rows = [torch.tensor([[9, *[image] * 4, *tail]]) for tail in ([20, 30], [40, 50, 60, 70])]
    pixels = torch.randn(2, 3, 28, 28, generator=generator)
    alone = [model(input_ids=row, pixel_values=pixels[i : i + 1]).logits for i, row in enumerate(rows)]
    places = torch.cat([torch.arange(row.shape[1]) for row in rows])[None]
    packed = model(input_ids=torch.cat(rows, dim=1), pixel_values=pixels, position_ids=places, use_cache=False).logits
    torch.testing.assert_close(packed, torch.cat(alone, dim=1), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("whole", [True, False])
@torch.no_grad()
def test_compiled_layers_do_not_keep_what_was_added_before(model, whole):
    with_picture, other = batch(model), batch(model, seed=1)
    text = {"input_ids": torch.full_like(other["input_ids"], 9), "attention_mask": other["attention_mask"]}
    order = (text, with_picture, other, text, with_picture)
    expected = [model(**inputs).logits for inputs in order]
    torch.compiler.reset()
    if whole:
        model.compile(backend="eager")
    else:
        for block in model.model.language_model.layers:
            block.compile(backend="eager")
    for inputs, logits in zip(order, expected, strict=True):
        torch.testing.assert_close(model(**inputs).logits, logits, atol=1e-5, rtol=1e-4)


def test_a_picture_that_stands_for_nothing_still_trains_every_part(model):
    inputs = batch(model) | {"input_ids": torch.full((2, 6), 9), "attention_mask": torch.ones(2, 6, dtype=torch.long)}
    grads = gradients(model, inputs | {"dummy_image": True})
    assert not grads["model.fusion.projectors.0.3.weight"].any()


@torch.no_grad()
def test_it_survives_saving(model, tmp_path):
    model.save_pretrained(tmp_path)
    again = IgvaForConditionalGeneration.from_pretrained(tmp_path).eval()
    inputs = batch(model)
    assert torch.equal(model(**inputs).logits, again(**inputs).logits)


@pytest.mark.parametrize(
    ("dims", "kwargs", "told"),
    [
        (FusionDims(4, 8, 4, None), {}, "there is none here"),
        (FusionDims(4, 8, 4, None, 16, 2), {"layers": [1, 2, 3]}, "room for 1 to 2"),
        (FusionDims(4, 8, 4, None, 16, 2), {"layers": []}, "room for 1 to 2"),
    ],
)
def test_where_it_does_not_fit(dims, kwargs, told):
    with pytest.raises(ValueError, match=told):
        build_fusion("deepstack", kwargs, dims)
