"""A class that is not there: what changes in the layer means, which samples get it, and what is refused."""

from __future__ import annotations

import re

import pytest
import torch

from igva.data.dataset import ChatDataset
from igva.data.imagined import Imagination, Imagined, imagined_of, without_imagined
from igva.data.records import record_from
from igva.errors import UserError
from igva.model.vision_layers import VisionLayers
from igva.testing import tiny_model, tiny_processor

TAPS = ((1, 2), (4,), (3, 4), (4,))  # layer 4 is the words layer


def layers(pictures=1, dtype=torch.float32):
    patches = torch.randn(pictures, 4, 9, 6).to(dtype)
    return VisionLayers(patches, patches.float().mean(dim=2).to(dtype))


def record(imagined=None, images=("a.png",), name="r"):
    entry = {"conversations": [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "It."}]}
    entry |= {} if imagined is None else {"imagined": imagined}
    return record_from(entry, list(images), where="here", name=name, source="s")


def test_only_these_cells_of_the_words_layer_change():
    vectors, before = torch.randn(5, 6), layers()
    kept = before.patches.clone()
    after = Imagination(TAPS, 4, vectors)(before, Imagined(3, 0.7, (0, 5)))
    assert torch.equal(before.patches, kept)
    changed = (after.patches != before.patches).any(dim=-1)[0]  # (T, N)
    assert changed.nonzero().tolist() == [[1, 0], [1, 5], [3, 0], [3, 5]]
    expected = 0.3 * before.patches[0, 1, 5] + 0.7 * vectors[3]
    torch.testing.assert_close(after.patches[0, 1, 5], expected)
    torch.testing.assert_close(after.descriptors, after.patches.mean(dim=2))  # still the mean of the patches
    assert torch.equal(after.descriptors[:, [0, 2]], before.descriptors[:, [0, 2]])


def test_the_whole_class_in_bfloat16():
    vectors, before = torch.randn(5, 6), layers(2, torch.bfloat16)
    after = Imagination(TAPS, 4, vectors)(before, Imagined(0, 1.0, tuple(range(9))))
    assert after.patches.dtype == after.descriptors.dtype == torch.bfloat16
    torch.testing.assert_close(after.patches[1, 1, 8].float(), vectors[0], atol=0.02, rtol=0.02)
    torch.testing.assert_close(after.descriptors[1, 1].float(), vectors[0], atol=0.05, rtol=0.05)


def test_a_group_of_the_words_layer_and_others_is_not_enough():
    with pytest.raises(UserError, match=r"no group of the fusion is the words layer \(3\) alone: .*imagined=false"):
        Imagination(TAPS, 3, torch.zeros(5, 6))


def test_records():
    found = imagined_of(record({"class": 7, "share": 1, "cells": [5, 2, 5]}))
    assert found == Imagined(7, 1.0, (2, 5))
    plain, imagined = record(), record({"class": 7, "share": 0.5, "cells": [1]})
    assert imagined_of(plain) is None and without_imagined([plain, imagined]) == [plain]


WRONG = [
    3,
    {"class": 1, "share": 0.5},
    {"class": 1, "share": 0.5, "cells": []},
    {"class": 1, "share": 0.5, "cells": [-1]},
    {"class": 1, "share": 0.5, "cells": "all"},
    {"class": "dog", "share": 0.5, "cells": [1]},
    {"class": True, "share": 0.5, "cells": [1]},
    {"class": 1, "share": 0, "cells": [1]},
    {"class": 1, "share": 1.5, "cells": [1]},
]


@pytest.mark.parametrize("imagined", WRONG)
def test_malformed(imagined):
    with pytest.raises(UserError, match=r"^sample r: its imagined is not a class .*data\.imagined=false$"):
        imagined_of(record(imagined))


@pytest.mark.parametrize("images", [(), ("a.png", "b.png")])
def test_not_exactly_one_picture(images):
    with pytest.raises(UserError, match=rf"sample r: it imagines a class on {len(images)} pictures"):
        imagined_of(record({"class": 1, "share": 0.5, "cells": [1]}, images))


def test_check_names_what_is_not_there():
    imagination = Imagination(TAPS, 4, torch.zeros(5, 6))
    imagination.check(Imagined(4, 0.5, (0, 8)), 9, "sample r")
    with pytest.raises(UserError, match=re.escape("sample r imagines class 5: the words layer has 5")):
        imagination.check(Imagined(5, 0.5, (0,)), 9, "sample r")
    with pytest.raises(UserError, match=re.escape("sample r imagines on cell 9: a picture has 9")):
        imagination.check(Imagined(0, 0.5, (0, 9)), 9, "sample r")


class Cached:
    """Layer means that stand still."""

    bad: dict[str, str] = {}  # noqa: RUF012

    def __init__(self, taps):
        self.means = VisionLayers(torch.ones(1, taps, 4, 32), torch.ones(1, taps, 32))

    def __call__(self, images):
        return self.means


@pytest.fixture
def processor():
    return tiny_processor(tiny_model("mean"))


def test_samples(processor, tmp_path):
    records = [record(images=[tmp_path]), record({"class": 1, "share": 0.5, "cells": [3]}, [tmp_path])]
    imagination = Imagination(((1, 2), (4,)), 4, torch.full((2, 32), 3.0))
    plain, imagined = ChatDataset(records, processor, layers=Cached(2), imagination=imagination)
    assert (plain["layer_patches"] == 1).all() and (plain["layer_descriptors"] == 1).all()
    assert imagined["layer_patches"][0, 1, 3, 0] == 2 and imagined["layer_descriptors"][0, 1, 0] == 1.25
    blind = ChatDataset(records, processor, layers=Cached(2), imagination=imagination, zero_images=True)[1]
    assert not blind["layer_patches"].any() and not blind["layer_descriptors"].any()
    with pytest.raises(UserError, match=r"sample r: it imagines a class, which needs a words layer: .*imagined=false"):
        ChatDataset(records, processor, layers=Cached(2))[1]
    with pytest.raises(UserError, match=r"sample r: .*set data\.cache_features=true, or .*imagined=false"):
        ChatDataset(records, processor)[1]


def test_a_tower_without_a_words_layer():
    with pytest.raises(UserError, match=r"the vision tower has no words layer: .*imagined=false"):
        Imagination.of(tiny_model("mean"))
