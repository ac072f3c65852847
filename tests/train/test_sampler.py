"""The order of an epoch: every sample once, like with like, decided by seed and epoch alone."""

from __future__ import annotations

import random
from itertools import chain, pairwise

import pytest
from accelerate.data_loader import BatchSamplerShard
from torch.utils.data import BatchSampler

from igva.errors import UserError
from igva.train.sampler import StepSampler

BATCH = 8


@pytest.fixture(scope="module")
def data():
    """Lengths and modalities of 1,003 samples; text-only ones are rare and of any length."""
    draw = random.Random(0)
    has_images = [draw.random() > 0.1 for _ in range(1003)]
    return [600 + draw.randint(0, 500) if image else draw.randint(20, 2048) for image in has_images], has_images


def batches_of(sampler):
    return list(BatchSampler(sampler, BATCH, drop_last=False))


def waste(lengths, batches):
    """Share of padding if each batch is padded to its longest sample."""
    padded = sum(len(batch) * max(lengths[i] for i in batch) for batch in batches)
    return 1 - sum(lengths) / padded


@pytest.mark.parametrize("group_by", ["modality_length", "none"])
@pytest.mark.parametrize("count", [1, 7, 8, 9, 64, 1003])
def test_every_sample_once(count, group_by, data):
    lengths, has_images = (values[:count] for values in data)
    sampler = StepSampler(lengths, has_images, BATCH, group_by=group_by)
    assert len(sampler) == count
    order = list(sampler)
    assert sorted(order) == list(range(count))
    assert all(type(index) is int for index in order)


@pytest.mark.parametrize("group_by", ["modality_length", "none"])
def test_the_order_is_of_seed_and_epoch(group_by, data):
    def order(seed, epoch):
        sampler = StepSampler(*data, BATCH, seed=seed, group_by=group_by)
        list(sampler)  # what was drawn before does not matter
        sampler.set_epoch(epoch)
        return [index - epoch * len(sampler) for index in sampler]

    assert order(0, 3) == order(0, 3)
    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


def test_the_epoch_is_in_the_index(data):
    sampler = StepSampler(*data, BATCH)
    sampler.set_epoch(2)
    assert sorted(sampler) == list(range(2 * 1003, 3 * 1003))


def test_batches_of_one_modality(data):
    """All but one, where what is left of both modalities meets."""
    lengths, has_images = data
    mixed = [len({has_images[i] for i in batch}) > 1 for batch in batches_of(StepSampler(lengths, has_images, BATCH))]
    assert sum(mixed) <= 1 and not any(mixed[:-2])
    pictures = sum(has_images) // BATCH * BATCH
    whole = [i for i in range(1003) if has_images[i]][:pictures]
    sampler = StepSampler([lengths[i] for i in whole], [True] * pictures, BATCH)
    assert len(batches_of(sampler)) == pictures // BATCH


def test_little_padding(data):
    lengths, has_images = data
    shuffled = waste(lengths, batches_of(StepSampler(lengths, has_images, BATCH, group_by="none")))
    grouped = waste(lengths, batches_of(StepSampler(lengths, has_images, BATCH)))
    assert grouped < 0.05 < 0.3 < shuffled


def test_the_longest_batch_comes_first(data):
    lengths, has_images = data
    for seed in range(5):
        first = batches_of(StepSampler(lengths, has_images, BATCH, seed=seed))[0]
        whole = max(
            max(lengths[i] for i in b) for b in batches_of(StepSampler(lengths, has_images, BATCH, seed=seed))[:-2]
        )
        assert max(lengths[i] for i in first) == whole


def test_the_rest_is_shuffled(data):
    """Short and long batches alternate: no curriculum by length."""
    lengths, has_images = data
    means = [sum(lengths[i] for i in b) / len(b) for b in batches_of(StepSampler(lengths, has_images, BATCH))[1:-2]]
    rising = sum(a < b for a, b in pairwise(means))
    assert 0.35 < rising / len(means) < 0.65


def test_small_data_sets_are_grouped_anew_each_epoch():
    sampler = StepSampler(list(range(64)), [True] * 64, BATCH)
    together = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        together.append({frozenset(i % 64 for i in batch) for batch in batches_of(sampler)})
    assert together[0] != together[1]


def test_the_ranks_slices_are_of_like_length(data):
    """accelerate deals micro-batches to the ranks in turn."""
    lengths, has_images = data
    micro, ranks = 2, 2
    sampler = StepSampler(lengths, has_images, BATCH)
    shards = [
        list(BatchSamplerShard(BatchSampler(sampler, micro, drop_last=False), ranks, rank)) for rank in range(ranks)
    ]
    dealt = list(chain.from_iterable(chain.from_iterable(zip(*shards, strict=True))))
    assert dealt[:1000] == list(sampler)[:1000]
    unequal = [abs(max(lengths[i] for i in a) - max(lengths[i] for i in b)) for a, b in zip(*shards, strict=True)]
    assert sorted(unequal)[len(unequal) // 2] < 20


def test_an_unknown_way_to_group():
    with pytest.raises(UserError, match=r"data\.group_by is 'length': choose modality_length or none"):
        StepSampler([1], [True], 1, group_by="length")
