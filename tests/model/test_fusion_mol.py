"""Mixture of layers: its formulas, what it picks, and how it is kept from picking always the same."""

from __future__ import annotations

import pytest
import torch

from igva.model.configuration_igva import IgvaConfig
from igva.model.fusion_base import FusionDims
from igva.model.fusions import build_fusion
from igva.model.modeling_igva import IgvaForConditionalGeneration
from igva.model.vision_layers import VisionLayers
from igva.testing import tiny_model

SMALL = FusionDims(num_layers=6, vision_dim=8, num_patches=4, instruction_dim=5)
FORMS = ("mol_layer", "mol_patch", "mol_hybrid")


def made(name, **kwargs):
    torch.manual_seed(1)
    fusion = build_fusion(name, kwargs, SMALL)
    layers = VisionLayers(torch.randn(2, 7, 4, 8), torch.randn(2, 7, 8))
    return fusion.eval(), layers, torch.randn(2, 5)


def score(fusion, question, state):
    query = fusion.scores.query_proj(question)
    return (query * fusion.scores.key_proj(state)).sum(-1) / query.shape[-1] ** 0.5


@pytest.mark.parametrize("name", FORMS)
@torch.no_grad()
def test_as_many_layers_as_asked_for(name):
    fusion, layers, question = made(name, top_k=2)
    out = fusion(layers, question)
    assert out.weights.shape == ((2, 6) if name == "mol_layer" else (2, 4, 6))
    assert ((out.weights > 0).sum(-1) == 2).all()
    assert out.features.shape == (2, 4, 8) and fusion.layer_groups == ((1,), (2,), (3,), (4,), (5,), (6,))


@torch.no_grad()
def test_layer_form_by_hand():
    fusion, layers, question = made("mol_layer", top_k=6, temperature=0.5)
    scores = torch.stack([score(fusion, question, layers.patches[:, 1 + k].mean(dim=1)) for k in range(6)], dim=-1)
    weights = (scores / 0.5).softmax(-1)
    out = fusion(layers, question)
    torch.testing.assert_close(out.weights, weights, atol=1e-5, rtol=1e-5)
    mixed = sum(weights[:, k, None, None] * layers.patches[:, 1 + k] for k in range(6))
    torch.testing.assert_close(out.features, mixed, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_hybrid_form_by_hand():
    fusion, layers, question = made("mol_hybrid", top_k=3)
    fusion.disagreement.weight.fill_(0.7)
    fusion.disagreement.bias.fill_(-0.3)
    out = fusion(layers, question)
    for i in range(2):
        p_g = torch.stack([score(fusion, question[i], layers.patches[i, 1 + k].mean(dim=0)) for k in range(6)]).softmax(
            0
        )
        beta = fusion.to_beta(question[i]).sigmoid()
        for n in range(4):
            p_n = torch.stack([score(fusion, question[i], layers.patches[i, 1 + k, n]) for k in range(6)]).softmax(0)
            q = p_g ** (1 - beta) * p_n**beta
            q = q / q.sum()
            best = q.topk(3).indices
            q = torch.zeros(6).scatter(0, best, q[best])
            q = q / q.sum()
            gamma = torch.sigmoid(0.7 * (p_n * (p_n / p_g).log()).sum() - 0.3)
            mixed = sum(q[k] * layers.patches[i, 1 + k, n] for k in range(6))
            expected = (1 - gamma) * mixed + gamma * layers.patches[i, 0, n]
            torch.testing.assert_close(out.weights[i, n], q, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(out.features[i, n], expected, atol=1e-5, rtol=1e-5)


def test_load_balance_is_the_switch_loss():
    fusion, layers, question = made("mol_layer", top_k=1, load_balance_coef=0.5)
    out = fusion(layers, question)
    shares = fusion.shares(fusion.scores(question, layers.patches[:, 1:].mean(dim=2)))
    used = torch.zeros(6)
    for row in shares:
        used[row.argmax()] += 0.5  # two pictures
    torch.testing.assert_close(out.aux_loss, 0.5 * 6 * (used * shares.mean(dim=0)).sum())
    even, asked = torch.full((3, 6), 1 / 6), torch.ones(3, 5)
    assert fusion.load_balance(even, even, asked).item() == pytest.approx(0.5 * 6)  # all picked, top_k 1
    assert made("mol_layer", load_balance_coef=0.0)[0].load_balance(even, even, asked) is None


@pytest.mark.parametrize("name", FORMS)
@torch.no_grad()
def test_an_image_nobody_asked_about_takes_the_deepest_layers_and_does_not_count(name):
    fusion, layers, question = made(name)
    question[1] = 0
    out = fusion(layers, question)
    expected = torch.tensor([0, 0, 0, 0, 0.5, 0.5])
    torch.testing.assert_close(out.weights[1], expected.expand_as(out.weights[1]))
    alone = fusion(VisionLayers(layers.patches[:1], layers.descriptors[:1]), question[:1])
    torch.testing.assert_close(out.aux_loss, alone.aux_loss)
    assert fusion(layers, torch.zeros_like(question)).aux_loss == 0


def test_the_temperature_falls_while_training():
    fusion, *_ = made("mol_patch", anneal_steps=4)
    assert fusion.temperature() == 2.0
    fusion.train()
    assert [float(fusion.temperature()) for _ in range(6)] == [2.0, 1.75, 1.5, 1.25, 1.0, 1.0]
    assert fusion.eval().temperature() == 1.0
    again = build_fusion("mol_patch", {"anneal_steps": 4}, SMALL)
    again.load_state_dict(fusion.state_dict())  # a resumed run goes on where it was
    assert again.temperature() == 1.0


@pytest.mark.parametrize("name", FORMS)
def test_one_forward_is_one_step_and_the_end_is_the_fixed_temperature(name):
    fusion, layers, question = made(name, anneal_steps=3)
    fusion.train()
    for _ in range(3):
        fusion(layers, question)
    assert fusion.temperature.seen == 3
    fixed, *_ = made(name)
    assert torch.equal(fusion.eval()(layers, question).weights, fixed(layers, question).weights)


@torch.no_grad()
def test_a_model_from_a_checkpoint_without_a_router_starts_at_step_zero(tmp_path):
    tiny_model("single").save_pretrained(tmp_path)
    config = IgvaConfig.from_pretrained(tmp_path)
    config.fusion, config.fusion_kwargs = "mol_hybrid", {"anneal_steps": 4}
    fusion = IgvaForConditionalGeneration.from_pretrained(tmp_path, config=config).model.fusion
    assert fusion.temperature.seen == 0
    assert fusion.disagreement.weight == 0 and fusion.disagreement.bias == 0
    assert fusion.scores.key_proj.weight.isfinite().all() and fusion.scores.key_proj.weight.std() > 0


def test_a_gradient_reaches_the_router():
    for name in FORMS:
        fusion, layers, question = made(name)
        fusion(layers, question).features.square().sum().backward()
        assert fusion.scores.query_proj.weight.grad.abs().max() > 0, name


@pytest.mark.parametrize("top_k", [0, 7])
def test_more_layers_than_there_are(top_k):
    with pytest.raises(ValueError, match=f"top_k {top_k} does not fit 6 layers"):
        build_fusion("mol_layer", {"top_k": top_k}, SMALL)


@pytest.mark.parametrize("kwargs", [{"temperature": 0.0}, {"start_temperature": -1.0}, {"router_dim": 0}])
def test_options_that_are_not_numbers_of_their_kind(kwargs):
    with pytest.raises(ValueError, match=next(iter(kwargs))):
        build_fusion("mol_layer", kwargs, SMALL)
