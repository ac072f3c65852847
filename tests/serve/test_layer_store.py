"""Layer means of recent pictures."""

from __future__ import annotations

import torch

from igva.model.vision_layers import VisionLayers
from igva.serve.layer_store import LayerStore

SIZE = (1 * 2 * 4 * 8 + 1 * 2 * 8) * 4


def means(seed: int) -> VisionLayers:
    return VisionLayers(torch.full((1, 2, 4, 8), float(seed)), torch.zeros(1, 2, 8))


def test_the_oldest_make_room():
    store = LayerStore(3 * SIZE)
    for seed in range(3):
        store.put(str(seed), means(seed))
    assert store.get("0").patches[0, 0, 0, 0] == 0  # used: it stays longest
    store.put("3", means(3))
    assert store.get("1") is None and len(store) == 3 and store.bytes == 3 * SIZE
    assert [store.get(key) is not None for key in "023"] == [True] * 3
    assert (store.hits, store.misses) == (4, 1)


def test_twice_counts_once_and_too_large_is_not_kept():
    store = LayerStore(SIZE)
    store.put("a", means(0))
    store.put("a", means(0))
    assert store.bytes == SIZE and len(store) == 1
    small = LayerStore(SIZE - 1)
    small.put("a", means(0))
    assert small.get("a") is None and small.bytes == 0
