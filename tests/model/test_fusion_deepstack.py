"""Layers that enter inside the language model: where, when, and that nothing else notices."""

from __future__ import annotations

import pytest
import torch

from igva.model.fusion_base import FusionDims
from igva.model.fusions import build_fusion
from igva.model.modeling_igva import IgvaForConditionalGeneration
from igva.testing import tiny_model

CLIP_L = FusionDims(24, 1024, 576, None, text_dim=4096, num_text_layers=32)
KWARGS = {"layers": [1, 2]}


@pytest.fixture
def model():
    return tiny_model("deepstack", fusion_kwargs=KWARGS)


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


@torch.no_grad()
def test_without_its_layers_it_is_the_single_layer(model):
    for projector in model.model.fusion.projectors:
        projector[3].weight.zero_()
        projector[3].bias.zero_()
    single = tiny_model("single", fusion_kwargs={"layer": -2})
    single.load_state_dict(model.state_dict(), strict=False)
    inputs = batch(model)
    assert torch.equal(model(**inputs).logits, single(**inputs).logits)


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
    assert not model.model._injecting  # no hook stays behind


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


def test_gradient_checkpointing_changes_nothing(model):
    inputs = batch(model)
    plain = gradients(model, inputs)
    assert plain["model.fusion.projectors.1.3.weight"].abs().max() > 0
    model.gradient_checkpointing_enable({"use_reentrant": False})
    checkpointed = gradients(model, inputs)
    assert plain.keys() == checkpointed.keys()
    for name, value in plain.items():
        torch.testing.assert_close(checkpointed[name], value, atol=1e-6, rtol=1e-5)


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
