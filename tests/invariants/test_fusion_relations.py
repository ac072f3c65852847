"""Relations that hold for every fusion of the table, whatever its weights are."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from igva.model.configuration_igva import IgvaConfig
from igva.model.fusion_base import FusionDims
from igva.model.fusion_igva import balance_loss, load_balance_loss
from igva.model.fusions import build_fusion, fusion_class, fusion_names
from igva.model.vision_layers import VisionLayers
from igva.testing import ENSEMBLE, SMALL_FUSION_KWARGS, TOWERS, tiny_model

LAYERS, WIDTH, PATCHES, QUESTION = 12, 32, 16, 24
DIMS = FusionDims(LAYERS, WIDTH, PATCHES, QUESTION, text_dim=40, num_text_layers=2)


def randomize(module):
    """Every parameter from a normal distribution: nothing may hold only because something starts at zero."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.5)
    return module.eval()


# Options that change what a method does hold to the same relations.
OPTIONS = {
    "igva per patch": {"per_patch": True},
    "igva_concat per patch": {"per_patch": True},
    "igva sharp": {"temperature": 0.3},
    "igva loud": {"query_norm": True},
    "igva norms first": {"pre_norm": True},
    "igva balanced over the batch": {"load_balance_coef": 0.1, "level_embeddings": True},
}


def make(name, **kwargs):
    kwargs = {**OPTIONS.get(name, {}), **kwargs}
    name = name.split()[0]
    return randomize(build_fusion(name, {**SMALL_FUSION_KWARGS.get(name, {}), **kwargs}, DIMS))


def inputs(fusion, images=4):
    layers = VisionLayers(
        torch.randn(images, len(fusion.taps), PATCHES, WIDTH), torch.randn(images, len(fusion.taps), WIDTH)
    )
    return layers, torch.randn(images, QUESTION) if fusion.needs_instruction else None


def rows(layers, instruction, order):
    picked = VisionLayers(layers.patches[order], layers.descriptors[order])
    return picked, instruction[order] if instruction is not None else None


def same(left, right, **options):
    options = {"atol": 1e-5, "rtol": 1e-5, **options}
    torch.testing.assert_close(left.features, right.features, **options)
    assert (left.weights is None) == (right.weights is None)
    if left.weights is not None:
        torch.testing.assert_close(left.weights, right.weights, **options)


def handed_on(out):
    """All that the rest of the model sees of a fusion: ``(I, everything)``."""
    return torch.cat([out.features.flatten(1), *(part.flatten(1) for part in (out.injections or {}).values())], dim=1)


every_fusion = pytest.mark.parametrize("name", [*fusion_names(), *OPTIONS])


@every_fusion
@torch.no_grad()
def test_swapping_samples_permutes_the_outputs(name):
    fusion = make(name)
    layers, instruction = inputs(fusion)
    order = torch.tensor([2, 0, 3, 1])
    out, swapped = fusion(layers, instruction), fusion(*rows(layers, instruction, order))
    torch.testing.assert_close(handed_on(swapped), handed_on(out)[order], atol=1e-5, rtol=1e-5)
    if out.weights is not None:
        torch.testing.assert_close(swapped.weights, out.weights[order], atol=1e-5, rtol=1e-5)
    assert (out.features[order] - out.features).abs().max() > 0.1


@every_fusion
@torch.no_grad()
def test_a_batch_is_its_samples(name):
    fusion = make(name)
    layers, instruction = inputs(fusion)
    out = fusion(layers, instruction)
    for i in range(4):
        alone = fusion(*rows(layers, instruction, [i]))
        torch.testing.assert_close(handed_on(alone)[0], handed_on(out)[i], atol=1e-5, rtol=1e-5)
        if out.weights is not None:
            torch.testing.assert_close(alone.weights[0], out.weights[i], atol=1e-5, rtol=1e-5)


@every_fusion
@torch.no_grad()
def test_weights_sum_to_one(name):
    fusion = make(name)
    out = fusion(*inputs(fusion))
    if out.weights is None:
        assert fusion.layer_groups == ()
        return
    groups = len(fusion.layer_groups)
    assert out.weights.shape in ((4, groups), (4, PATCHES, groups))
    assert (out.weights >= 0).all()
    torch.testing.assert_close(out.weights.sum(-1), torch.ones(out.weights.shape[:-1]), atol=1e-5, rtol=1e-5)


@every_fusion
@torch.no_grad()
def test_the_instruction_matters_exactly_if_it_is_needed(name):
    fusion = make(name)
    layers, _ = inputs(fusion)
    layers = VisionLayers(layers.patches[:1].expand(2, -1, -1, -1), layers.descriptors[:1].expand(2, -1, -1))
    out = fusion(layers, torch.randn(2, QUESTION))
    difference = (out.features[0] - out.features[1]).abs().max()
    assert difference > 1e-3 if fusion.needs_instruction else difference == 0
    if not fusion.needs_instruction:
        assert torch.equal(fusion(layers, None).features, out.features)


@every_fusion
@torch.no_grad()
def test_the_image_matters(name):
    fusion = make(name)
    layers, instruction = inputs(fusion, images=2)
    if instruction is not None:
        instruction = instruction[:1].expand(2, -1)
    out = fusion(layers, instruction)
    assert (out.features[0] - out.features[1]).abs().max() > 0.1


@every_fusion
@torch.no_grad()
def test_whether_the_picture_has_a_say_in_the_mixing(name):
    """Where weights are told, they change with the picture; else the features are not linear in the layers."""
    fusion = make(name)
    layers, instruction = inputs(fusion)
    other, _ = inputs(fusion)
    out, moved = fusion(layers, instruction), fusion(other, instruction)
    if out.weights is not None:
        changed = (out.weights - moved.weights).abs().max() > 1e-4
    else:
        both = VisionLayers(layers.patches + other.patches, layers.descriptors + other.descriptors)
        changed = (fusion(both, instruction).features - out.features - moved.features).abs().max() > 1e-3
    assert changed == fusion.image_dependent


@every_fusion
@torch.no_grad()
def test_a_state_dict_holds_all_of_it(name):
    fusion = make(name)
    layers, instruction = inputs(fusion)
    fresh = build_fusion(name.split()[0], fusion.config.to_kwargs(), DIMS).eval()
    assert fresh.config == fusion.config and fresh.taps == fusion.taps
    fresh.load_state_dict(copy.deepcopy(fusion.state_dict()))
    assert torch.equal(handed_on(fresh(layers, instruction)), handed_on(fusion(layers, instruction)))


@every_fusion
def test_it_says_what_it_is(name):
    cls = fusion_class(name.split()[0])
    assert cls.summary and cls.source
    fusion = make(name)
    assert all(list(tap) == sorted(set(tap)) and 0 <= tap[0] <= tap[-1] <= LAYERS for tap in fusion.taps)


@pytest.mark.parametrize("tower", [*TOWERS, ENSEMBLE])
@pytest.mark.parametrize("name", fusion_names())
@torch.no_grad()
def test_taps_width_and_tokens_agree_with_the_forward(name, tower):
    model = tiny_model(name, tower)
    fusion, seen = model.model.fusion, []
    fusion.register_forward_hook(lambda module, args, output: seen.append((args[0], output)))
    width = model.config.instruction_dim
    out = model.get_image_features(torch.randn(3, 3, 28, 28), instruction_embeds=torch.randn(3, width))
    layers, mixed = seen[0]
    assert layers.patches.shape == (3, len(fusion.taps), 4, 32)
    assert layers.descriptors.shape == (3, len(fusion.taps), 32)
    assert mixed.features.shape == (3, fusion.num_tokens, fusion.output_dim)
    assert [tuple(tokens.shape) for tokens in out.pooler_output] == [(fusion.num_tokens, 48)] * 3
    assert model.model.projector.linear_1.in_features == fusion.output_dim


@every_fusion
def test_gradients_reach_every_parameter(name):
    fusion = make(name)
    if not list(fusion.parameters()):
        pytest.skip("it has none")
    out = fusion(*inputs(fusion))
    (handed_on(out).square().mean() + (out.aux_loss if out.aux_loss is not None else 0)).backward()
    for parameter_name, parameter in fusion.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), parameter_name


# --- the paper's method ---------------------------------------------------------------------------------------


def test_parameters_of_the_papers_allocator():
    config = IgvaConfig(instruction_dim=768)
    with torch.device("meta"):
        fusion = build_fusion("igva", {}, config.fusion_dims())
    assert config.fusion_dims() == FusionDims(24, 1024, 576, 768, 4096, 32)
    assert sum(p.numel() for p in fusion.allocator.parameters()) == 27_047_940
    assert sum(p.numel() for p in fusion.parameters()) == 27_047_940


def permuted_weights(**kwargs):
    fusion = make("igva", num_groups=4, **kwargs)
    layers, instruction = inputs(fusion)
    order = torch.tensor([0, 3, 1, 4, 2])  # the base layer stays first
    permuted = VisionLayers(layers.patches, layers.descriptors[:, order])
    with torch.no_grad():
        return fusion(layers, instruction).weights, fusion(permuted, instruction).weights


def test_without_level_embeddings_the_order_of_the_keys_does_not_matter():
    weights, permuted = permuted_weights()
    torch.testing.assert_close(permuted, weights, atol=1e-6, rtol=1e-5)
    assert weights.std() > 0.05


def test_with_level_embeddings_it_does():
    weights, permuted = permuted_weights(level_embeddings=True)
    assert (permuted - weights).abs().max() > 1e-3


@torch.no_grad()
def test_the_features_are_base_and_weighted_sum():
    fusion = make("igva", num_groups=3)
    layers, instruction = inputs(fusion)
    out = fusion(layers, instruction)
    base, fused = out.features.split(WIDTH, dim=-1)
    assert torch.equal(base, layers.patches[:, 0])
    expected = sum(out.weights[:, k, None, None] * layers.patches[:, k + 1] for k in range(3))
    torch.testing.assert_close(fused, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_uniform_start_is_the_plain_average():
    torch.manual_seed(0)
    fusion = build_fusion("igva", {**SMALL_FUSION_KWARGS["igva"], "uniform_start": True}, DIMS).eval()
    mean = build_fusion("mean", {"num_groups": 2}, DIMS)
    layers, instruction = inputs(fusion)
    same(fusion(layers, instruction), mean(layers, None), atol=1e-6)


@torch.no_grad()
def test_a_uniform_start_holds_in_a_new_model():
    model = tiny_model("igva", fusion_kwargs={**SMALL_FUSION_KWARGS["igva"], "uniform_start": True})
    out = model.get_image_features(torch.randn(2, 3, 28, 28), instruction_embeds=torch.randn(2, 24))
    torch.testing.assert_close(out.fusion_weights, torch.full((2, 2), 0.5))


def test_balance_loss_is_minus_the_mean_entropy():
    weights = torch.tensor([[0.5, 0.5], [0.25, 0.75], [1.0, 0.0]])
    asked = torch.tensor([True, True, True])
    entropies = [math.log(2), -(0.25 * math.log(0.25) + 0.75 * math.log(0.75)), 0.0]
    assert balance_loss(weights, asked).item() == pytest.approx(-sum(entropies) / 3, abs=1e-6)
    uniform = torch.full((5, 4), 0.25)
    assert balance_loss(uniform, torch.ones(5, dtype=torch.bool)).item() == pytest.approx(-math.log(4), abs=1e-6)


def test_images_nobody_asked_about_stay_out_of_the_balance_loss():
    weights = torch.tensor([[0.5, 0.5], [0.25, 0.75], [0.9, 0.1]])
    asked = torch.tensor([True, False, True])
    assert balance_loss(weights, asked).item() == pytest.approx(
        balance_loss(weights[[0, 2]], torch.tensor([True, True])).item(), abs=1e-7
    )
    assert balance_loss(weights, torch.zeros(3, dtype=torch.bool)).item() == 0


def test_the_fusion_leaves_zero_instructions_out():
    fusion = make("igva", balance_coef=0.3)
    layers, instruction = inputs(fusion)
    instruction[1] = 0
    part, whole = fusion(*rows(layers, instruction, [0, 2, 3])), fusion(layers, instruction)
    torch.testing.assert_close(whole.aux_loss, part.aux_loss, atol=1e-6, rtol=1e-6)
    expected = 0.3 * balance_loss(part.weights, torch.ones(3, dtype=torch.bool))
    torch.testing.assert_close(whole.aux_loss, expected, atol=1e-6, rtol=1e-6)
    assert make("igva", balance_coef=0.0)(layers, instruction).aux_loss is None


def test_the_balance_loss_has_a_gradient_where_a_weight_is_zero():
    logits = torch.tensor([[200.0, 0.0, 0.0]], requires_grad=True)
    balance_loss(logits.softmax(-1), torch.tensor([True])).backward()
    assert logits.grad.isfinite().all()


def test_descending_the_balance_loss_evens_the_weights_out():
    logits = torch.tensor([[2.0, 0.0, -1.0, 0.5]], requires_grad=True)
    optimizer = torch.optim.SGD([logits], lr=1.0)
    for _ in range(300):
        optimizer.zero_grad()
        balance_loss(logits.softmax(-1), torch.tensor([True])).backward()
        optimizer.step()
    torch.testing.assert_close(logits.softmax(-1), torch.full((1, 4), 0.25), atol=1e-3, rtol=0)


# --- igva's own options ---------------------------------------------------------------------------------------


@torch.no_grad()
def test_weights_per_patch_start_as_one_set_and_then_differ():
    torch.manual_seed(0)
    kwargs = SMALL_FUSION_KWARGS["igva"]
    fusion = build_fusion("igva", {**kwargs, "per_patch": True}, DIMS).eval()
    plain = build_fusion("igva", kwargs, DIMS).eval()
    plain.load_state_dict({k: v for k, v in fusion.state_dict().items() if "patch_logits" not in k})
    layers, instruction = inputs(fusion)
    out = fusion(layers, instruction)
    assert out.weights.shape == (4, PATCHES, 2)
    torch.testing.assert_close(out.features, plain(layers, instruction).features, atol=1e-6, rtol=1e-5)
    fusion.allocator.patch_logits.gate.fill_(3.0)
    weights = fusion(layers, instruction).weights
    assert (weights - weights[:, :1]).abs().max() > 0.05
    changed = VisionLayers(layers.patches.clone(), layers.descriptors)
    changed.patches[:, 1, 5] += 1.0  # the weights of a patch follow that patch alone
    moved = (fusion(changed, instruction).weights - weights).abs().amax(dim=(0, 2))
    assert moved[5] > 1e-3 and moved[[p for p in range(PATCHES) if p != 5]].max() < 1e-6


def test_the_gate_of_a_new_model_is_closed():
    model = tiny_model("igva", fusion_kwargs={**SMALL_FUSION_KWARGS["igva"], "per_patch": True})
    assert model.model.fusion.allocator.patch_logits.gate.item() == 0


@torch.no_grad()
def test_a_normed_query_is_as_loud_whatever_the_length_of_the_sentence_vector():
    torch.manual_seed(0)
    dims = FusionDims(LAYERS, WIDTH, PATCHES, 384)
    quiet, loud = (build_fusion("igva", {"hidden_size": 64, "query_norm": on}, dims).eval() for on in (False, True))
    layers, _ = inputs(loud)
    instruction = torch.nn.functional.normalize(torch.randn(4, 384), dim=-1)  # as a sentence encoder gives it

    def moved(fusion, scale=1.0):
        own, other = (fusion(layers, scale * asked).weights for asked in (instruction, instruction.roll(1, 0)))
        return float((own - other).abs().sum(dim=-1).mean() / 2)

    assert moved(loud) > 1.5 * moved(quiet)
    assert moved(loud, scale=30.0) == pytest.approx(moved(loud), rel=0.35)
    assert not any("query_norm" in name for name in quiet.state_dict())


@torch.no_grad()
def test_with_norms_in_front_the_question_passes_blocks_that_say_the_same_to_all():
    """As deep a stack as one likes: where each block adds the same, questions are told apart as without blocks."""
    torch.manual_seed(0)

    def moved(pre_norm):
        fusion = make("igva", num_blocks=8, pre_norm=pre_norm)
        for block in fusion.allocator.blocks:
            for add in (block.attention.out_proj, block.feed_forward[2]):
                add.weight.zero_()
                add.bias.copy_(10 * torch.randn_like(add.bias))
        layers, instruction = inputs(fusion)
        own, other = (fusion(layers, asked).weights for asked in (instruction, instruction.roll(1, 0)))
        return float((own - other).abs().sum(dim=-1).mean() / 2)

    assert moved(True) > 100 * moved(False)


@pytest.mark.parametrize("options", [{}, {"level_embeddings": True, "query_norm": True}])
def test_without_blocks_the_question_alone_decides_and_every_parameter_learns(options):
    """One that nothing reads would be an error where several devices train."""
    fusion = make("igva", num_blocks=0, **options)
    layers, instruction = inputs(fusion)
    out = fusion(layers, instruction[:1].expand_as(instruction))
    torch.testing.assert_close(out.weights, out.weights[:1].expand_as(out.weights))
    (out.features.pow(2).mean() + out.weights[:, 0].sum()).backward()
    assert [name for name, parameter in fusion.named_parameters() if parameter.grad is None] == []


@torch.no_grad()
@pytest.mark.parametrize("per_patch", [False, True])
def test_a_temperature_sharpens_and_changes_no_order(per_patch):
    torch.manual_seed(0)
    plain = make("igva", per_patch=per_patch)
    layers, instruction = inputs(plain)
    logits = plain(layers, instruction).weights.log()
    for temperature in (0.25, 4.0):
        other = make("igva", per_patch=per_patch, temperature=temperature)
        other.load_state_dict(plain.state_dict())
        torch.testing.assert_close(other(layers, instruction).weights, (logits / temperature).softmax(dim=-1))
    for wrong in (0.0, -1.0):
        with pytest.raises(ValueError, match=f"temperature is {wrong}: a number above 0"):
            make("igva", temperature=wrong)


def test_load_balance_counts_the_batch_not_the_row():
    sharp = torch.eye(4)  # each row has chosen, the batch is even
    asked = torch.ones(4, dtype=torch.bool)
    assert load_balance_loss(sharp, asked).item() == pytest.approx(0, abs=1e-6)
    assert load_balance_loss(sharp[:1].expand(4, 4), asked).item() == pytest.approx(3)  # K - 1
    mean = torch.tensor([0.7, 0.1, 0.1, 0.1])
    expected = (mean.std(correction=0) / mean.mean()) ** 2
    assert load_balance_loss(mean.expand(4, 4), asked).item() == pytest.approx(expected.item(), abs=1e-6)
    assert load_balance_loss(mean.expand(2, 5, 4), asked[:2]).item() == pytest.approx(expected.item(), abs=1e-6)
    assert load_balance_loss(sharp, torch.tensor([True, False, False, False])).item() == pytest.approx(3)
    assert load_balance_loss(sharp, torch.zeros(4, dtype=torch.bool)).item() == 0
