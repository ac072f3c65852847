"""Mixture of layers: its formulas, what it picks, and how it is kept from picking always the same."""

from __future__ import annotations

import pytest
import torch

from igva.model.fusion_base import FusionDims
from igva.model.fusions import build_fusion
from igva.model.vision_layers import VisionLayers

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
    even = torch.full((3, 6), 1 / 6)
    assert fusion.load_balance(even, even).item() == pytest.approx(0.5 * 6 * 6 * (1 / 6))  # all picked, top_k 1
    assert made("mol_layer", load_balance_coef=0.0)[0].load_balance(even, even) is None


def test_the_temperature_falls_while_training():
    fusion, *_ = made("mol_patch", anneal_steps=4)
    assert fusion.temperature() == 2.0
    fusion.train()
    seen = [fusion.temperature() for _ in range(6)]
    assert seen == [2.0, 1.75, 1.5, 1.25, 1.0, 1.0]
    assert fusion.eval().temperature() == 1.0
    again = build_fusion("mol_patch", {"anneal_steps": 4}, SMALL)
    again.load_state_dict(fusion.state_dict())  # a resumed run goes on where it was
    assert again.temperature() == 1.0


def test_a_gradient_reaches_the_router():
    for name in FORMS:
        fusion, layers, question = made(name)
        fusion(layers, question).features.square().sum().backward()
        assert fusion.scores.query_proj.weight.grad.abs().max() > 0, name


@pytest.mark.parametrize("top_k", [0, 7])
def test_more_layers_than_there_are(top_k):
    with pytest.raises(ValueError, match=f"top_k {top_k} does not fit 6 layers"):
        build_fusion("mol_layer", {"top_k": top_k}, SMALL)
