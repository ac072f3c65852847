"""Layer means of every tower, against the tower's own hidden states."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from transformers import AutoModel

from igva.model.vision_layers import (
    VisionLayers,
    encoder_blocks,
    pool_patches,
    resolve_layer,
    resolve_tap,
    run_tower,
    split_layers,
)
from igva.testing import TOWERS, tiny_model, vision_config

PREFIX = {"clip": 1, "siglip": 0, "dinov2": 1, "dinov2_with_registers": 5, "vit": 1}  # CLS and registers
PATCHES = 4


def tower_of(kind, layers=4, size=28):
    torch.manual_seed(1)
    tower = AutoModel.from_config(vision_config(kind, layers)).eval()
    with torch.no_grad():
        for parameter in tower.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=parameter[0].numel() ** -0.5)
    return tower, torch.randn(3, 3, size, size)


def by_hand(tower, pixels, taps, patches=PATCHES, **kwargs):
    """``output_hidden_states`` and plain means."""
    states = tower(pixels, output_hidden_states=True, **kwargs).hidden_states
    means = torch.stack([torch.stack([states[i] for i in tap]).mean(0) for tap in taps], dim=1)
    prefix = means.shape[2] - patches
    grid = means[:, :, prefix:]
    return VisionLayers(grid, means[:, :, 0] if prefix else grid.mean(dim=2))


def same(got, expected):
    torch.testing.assert_close(got.patches, expected.patches, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(got.descriptors, expected.descriptors, atol=1e-5, rtol=1e-5)


TAPS = [
    [(0,), (1,), (2,), (3,), (4,)],  # every state alone, the embedding output first
    [(3,), (1, 2), (3, 4)],  # the fusions' way: a base layer that a group has too
    [(0, 1, 2, 3, 4)],
    [(0, 4), (1,)],
]


@pytest.mark.parametrize("taps", TAPS)
@pytest.mark.parametrize("kind", TOWERS)
@torch.no_grad()
def test_layer_means_are_the_means_of_the_hidden_states(kind, taps):
    tower, pixels = tower_of(kind)
    got = run_tower(tower, pixels, taps, num_layers=4, num_patches=PATCHES)
    assert got.patches.shape == (3, len(taps), PATCHES, 32)
    assert got.descriptors.shape == (3, len(taps), 32)
    same(got, by_hand(tower, pixels, taps))


@pytest.mark.parametrize("kind", TOWERS)
@torch.no_grad()
def test_registers_never_count(kind):
    tower, pixels = tower_of(kind)
    states = tower(pixels, output_hidden_states=True).hidden_states
    assert states[0].shape[1] == PREFIX[kind] + PATCHES
    got = run_tower(tower, pixels, [(2,)], num_layers=4, num_patches=PATCHES)
    assert torch.equal(got.patches[:, 0], states[2][:, PREFIX[kind] :])
    expected = states[2][:, 0] if PREFIX[kind] else states[2].mean(dim=1)
    assert torch.equal(got.descriptors[:, 0], expected)


@pytest.mark.parametrize("kind", TOWERS)
@torch.no_grad()
def test_inputs_of_another_size(kind):
    model = tiny_model("igva", kind, image_size=42)
    tower, pixels = model.model.vision_tower, torch.randn(2, 3, 42, 42)
    assert model.config.num_patches == 9 == model.model.fusion.num_tokens
    got = model.model.encode_image_layers(pixels)
    extra = {} if kind.startswith("dinov2") else {"interpolate_pos_encoding": True}
    same(got, by_hand(tower, pixels, model.model.fusion.taps, patches=9, **extra))


@pytest.mark.parametrize("kind", TOWERS)
@torch.no_grad()
def test_pooling_commutes_with_the_means(kind):
    tower, pixels = tower_of(kind)
    taps = [(3,), (1, 2)]
    whole = run_tower(tower, pixels, taps, num_layers=4, num_patches=PATCHES)
    pooled = run_tower(tower, pixels, taps, num_layers=4, num_patches=PATCHES, pool=2)
    assert pooled.patches.shape == (3, 2, 1, 32)
    torch.testing.assert_close(pooled.patches[:, :, 0], whole.patches.mean(dim=2), atol=1e-6, rtol=1e-5)
    assert torch.equal(pooled.descriptors, whole.descriptors)


def test_pooling_averages_neighbours():
    # a 4 × 4 grid in raster order
    grid = torch.arange(16.0).view(1, 16, 1)
    assert pool_patches(grid, 1) is grid
    assert pool_patches(grid, 2).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert pool_patches(grid, 4).flatten().tolist() == [7.5]


@pytest.mark.parametrize("kind", TOWERS)
def test_gradients_flow_through_the_means(kind):
    tower, pixels = tower_of(kind)
    taps = [(3,), (1, 2)]
    loss = run_tower(tower, pixels, taps, num_layers=4, num_patches=PATCHES).patches.square().sum()
    got = torch.autograd.grad(loss, list(tower.parameters()), allow_unused=True)
    loss = by_hand(tower, pixels, taps).patches.square().sum()
    expected = torch.autograd.grad(loss, list(tower.parameters()), allow_unused=True)
    for a, b in zip(got, expected, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-4)


@torch.no_grad()
def test_half_precision_states_are_summed_in_float32():
    tower, pixels = tower_of("clip", layers=16)
    tower = tower.to(torch.bfloat16)
    pixels = pixels.to(torch.bfloat16)
    states = tower(pixels, output_hidden_states=True).hidden_states
    exact = torch.stack([states[i].float() for i in range(1, 17)]).mean(0)[:, 1:]
    got = run_tower(tower, pixels, [tuple(range(1, 17))], num_layers=16, num_patches=PATCHES).patches[:, 0]
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got, exact.bfloat16(), atol=0, rtol=0)


@torch.no_grad()
def test_the_states_of_the_tower_are_not_written_to():
    tower, pixels = tower_of("clip")
    expected = tower(pixels).last_hidden_state
    kept = []
    hook = tower.register_forward_hook(lambda module, args, output: kept.append(output.last_hidden_state))
    run_tower(tower, pixels, [(4,), (3, 4), (0, 1)], num_layers=4, num_patches=PATCHES)
    hook.remove()
    assert torch.equal(kept[0], expected)


@torch.no_grad()
def test_never_all_hidden_states_at_once():
    """Of 24 blocks' outputs only a few are alive at any time: those on their way, and one-layer taps."""
    tower, pixels = tower_of("clip", layers=24)
    born: list[weakref.ref] = []
    most = 0

    def count(module, args, output):
        nonlocal most
        born.append(weakref.ref(output[0] if isinstance(output, tuple) else output))
        most = max(most, sum(ref() is not None for ref in born))

    hooks = [block.register_forward_hook(count) for block in encoder_blocks(tower, 24)]
    taps = [(23,), *split_layers(24, 4)]
    gc.collect()
    result = run_tower(tower, pixels, taps, num_layers=24, num_patches=PATCHES)
    assert len(born) == 24
    # the block's input and output, the base layer, and the first state of a group until the second comes
    assert most <= 4
    del result
    states = tower(pixels, output_hidden_states=True).hidden_states  # the usual way, to see that this counts
    assert most > 20 and len(states) == 25
    for hook in hooks:
        hook.remove()


@torch.no_grad()
def test_hooks_are_gone_afterwards_even_if_the_tower_fails():
    tower, pixels = tower_of("clip")
    run_tower(tower, pixels, [(1,)], num_layers=4, num_patches=PATCHES)
    with pytest.raises(Exception):  # noqa: B017  (whatever torch says to two channels)
        run_tower(tower, pixels[:, :2], [(1,)], num_layers=4, num_patches=PATCHES)
    for block in encoder_blocks(tower, 4):
        assert not block._forward_hooks and not block._forward_pre_hooks


@torch.no_grad()
def test_too_few_tokens_are_refused():
    tower, pixels = tower_of("siglip")
    with pytest.raises(ValueError, match=r"gave 4 tokens .* \(28, 28\) .* says 9 patches"):
        run_tower(tower, pixels, [(1,)], num_layers=4, num_patches=9)


def test_a_tower_that_cannot_be_tapped():
    with pytest.raises(ValueError, match="Linear has no list of 4 encoder blocks"):
        encoder_blocks(torch.nn.Linear(2, 2), 4)


def test_layer_numbers():
    assert [resolve_layer(i, 24) for i in (0, 1, 24, -1, -2, -25)] == [0, 1, 24, 24, 23, 0]
    for wrong in (25, 30, -26):
        with pytest.raises(ValueError, match=rf"layer {wrong} does not exist: the vision tower has 24 layers"):
            resolve_layer(wrong, 24)


def test_taps():
    assert resolve_tap([3, -1, 0], 4) == (0, 3, 4)
    with pytest.raises(ValueError, match="empty"):
        resolve_tap([], 4)
    with pytest.raises(ValueError, match="twice"):
        resolve_tap([4, -1], 4)


@pytest.mark.parametrize(
    ("layers", "groups", "sizes"),
    [(24, 4, [6, 6, 6, 6]), (24, 5, [5, 5, 5, 5, 4]), (12, 5, [3, 3, 2, 2, 2]), (3, 3, [1, 1, 1]), (7, 1, [7])],
)
def test_splits(layers, groups, sizes):
    split = split_layers(layers, groups)
    assert [len(group) for group in split] == sizes
    assert [layer for group in split for layer in group] == list(range(1, layers + 1))  # 0 is in none


@pytest.mark.parametrize("groups", [0, -1, 5])
def test_impossible_splits(groups):
    with pytest.raises(ValueError, match=f"4 layers into {groups} groups"):
        split_layers(4, groups)
