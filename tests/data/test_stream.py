"""Streams: every sample exactly once an epoch over processes and ranks, repeatable, shuffled by seed and epoch."""

from __future__ import annotations

import json
from collections import Counter

import pytest
import torch
from torch.utils.data import DataLoader

from igva.data import dataset as module
from igva.data.dataset import ChatStream
from igva.data.sources import open_stream
from igva.testing import tiny_model, tiny_processor


@pytest.fixture(scope="module")
def processor():
    return tiny_processor(tiny_model())


@pytest.fixture
def shards(tmp_path, content, write_tar):
    """Five shards of unlike sizes, 23 samples, every third with a picture."""
    number = 0
    for shard, size in enumerate((7, 1, 4, 0, 11)):
        samples = {}
        for _ in range(size):
            text = ("<image>\n" if number % 3 == 0 else "") + f"What is {number}?"
            turns = [{"from": "human", "value": text}, {"from": "gpt", "value": "Yes."}]
            samples[f"s{number}"] = {"json": json.dumps({"conversations": turns}).encode()}
            if number % 3 == 0:
                samples[f"s{number}"]["png"] = content[1][f"{number % 5}.png"]
            number += 1
        write_tar(tmp_path / f"{shard}.tar", samples)
    return tmp_path


def stream(shards, processor, **options):
    return ChatStream(open_stream(shards), processor, **options)


def ids(samples):
    return [sample["id"] for sample in samples]


def first(samples):
    return samples[0]


def epoch(dataset, workers, number=0):
    dataset.set_epoch(number)
    return list(DataLoader(dataset, batch_size=1, num_workers=workers, collate_fn=first))


ALL = [f"s{i}" for i in range(23)]


@pytest.mark.parametrize("pattern", ["*.tar", "{0..4}.tar", "4.tar"])
@pytest.mark.parametrize(("workers", "world"), [(0, 1), (2, 1), (2, 2)])
def test_every_sample_exactly_once(pattern, workers, world, shards, processor):
    """With more shards than processes, and with a single one."""
    source = shards if pattern == "*.tar" else f"{shards}/{pattern}"
    parts = [ids(epoch(stream(source, processor, rank=rank, world_size=world), workers)) for rank in range(world)]
    wanted = ALL[12:] if pattern == "4.tar" else ALL
    assert Counter(name for part in parts for name in part) == Counter(wanted)
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= max(1, workers)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_repeats_and_the_next_differs(workers, shards, processor):
    dataset = stream(shards, processor, augment=True, seed=1)
    one, again, two = (epoch(dataset, workers, number) for number in (3, 3, 4))
    assert ids(one) == ids(again) != ids(two) and sorted(ids(one)) == sorted(ids(two)) == sorted(ALL)
    assert ids(one) != ids(epoch(stream(shards, processor, seed=2), workers, 3))
    assert all(
        torch.equal(a["pixel_values"], b["pixel_values"])
        for a, b in zip(one, again, strict=True)
        if "pixel_values" in a
    )


def test_augmentation_does_not_depend_on_processes(shards, processor):
    def pixels(number, **options):
        samples = epoch(stream(shards, processor, augment=True, **options), number, 2)
        return {sample["id"]: sample["pixel_values"] for sample in samples if "pixel_values" in sample}

    alone = pixels(0)
    ranks = [pixels(2, rank=rank, world_size=2) for rank in range(2)]
    assert all(torch.equal(alone[name], value) for part in [pixels(2), *ranks] for name, value in part.items())
    assert not torch.equal(alone["s0"], pixels(0, seed=1)["s0"])


def test_the_buffer_shuffles_within_a_shard_and_is_small(shards, processor, monkeypatch):
    one = f"{shards}/4.tar"
    assert ids(stream(one, processor)) != ALL[12:]
    monkeypatch.setattr(module._shuffled, "__defaults__", (2,))
    order = ids(stream(one, processor))
    assert sorted(order) == sorted(ALL[12:])
    # Of two that wait, the n-th out is at the latest the one that came in third from there.
    assert all(int(name[1:]) - 12 <= place + 2 for place, name in enumerate(order))


@pytest.mark.parametrize("policy", ["skip", "replace"])
def test_bad_pictures(policy, shards, processor, write_tar, content, refusal):
    turns = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "Yes."}]
    entry = json.dumps({"conversations": turns}).encode()
    pictures = {"good": content[1]["0.png"], "bad": b"nothing", "worse": content[1]["1.png"][:70]}
    path = write_tar(shards / "x.tar", {key: {"json": entry, "png": data} for key, data in pictures.items()})
    samples = {sample["id"]: sample for sample in epoch(stream(path, processor, on_bad_image=policy), 2)}
    assert {name: sample.get("bad_images") for name, sample in samples.items()} == {
        "good": None,
        "bad": [f"{path}/bad.png"],
        "worse": [f"{path}/worse.png"],
    }
    assert [name for name, sample in sorted(samples.items()) if sample.get("skipped")] == (
        ["bad", "worse"] if policy == "skip" else []
    )
    message = refusal(lambda: epoch(stream(path, processor), 2))
    assert message.startswith("sample ") and "\n" not in message


def test_a_malformed_record_is_one_line_from_a_process_too(shards, processor, write_tar, refusal):
    path = write_tar(shards / "y.tar", {"bad": {"json": b"{"}})
    for workers in (0, 2):
        message = refusal(lambda workers=workers: epoch(stream(path, processor), workers))
        assert message == f"{path}, sample bad: bad.json is not valid JSON"
