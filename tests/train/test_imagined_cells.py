"""Classes imagined in the warm-up and in a whole run: learnt without a picture, and refused in one line."""

import json
import random
from types import SimpleNamespace

import pytest
import torch

from igva.data.imagined import Imagination
from igva.errors import UserError
from igva.model.vision_layers import VisionLayers
from igva.train import imagined_cells
from igva.train import run as run_module
from igva.train.cells import CellTask
from igva.train.feature_cache import LayerCache
from igva.train.imagined_cells import CellImaginer, class_words, connected_half, read_photos
from igva.train.run import run
from igva.train.stages import set_trainable
from igva.train.starting_model import build_from_recipe
from igva.train.warmup import warm_up

NAMES = (("golden retriever", "dog"), ("violin", "violin"), ("volcano", None))
ALIGN = (
    "stage=align",
    "model.fusion=mean",
    "model.fusion_kwargs={groups: [[1, 2, 3], [4]]}",  # the last one is the words layer
    "lora.rank=0",
    "warm_up.batch_size=8",
    "warm_up.learning_rate=1e-2",
    "warm_up.imagined=0.5",
)


@pytest.fixture(autouse=True)
def named(monkeypatch):
    """Three classes."""
    found = tuple(SimpleNamespace(label=label, name=name) for label, name in NAMES)
    monkeypatch.setattr(imagined_cells, "classes", lambda: found)


def with_words(model):
    """The tower's layer 4 said to be a words layer."""
    vectors = torch.randn(3, 32, generator=torch.Generator().manual_seed(1)) * 4
    model.model.vision_tower.words_layer = lambda: (4, vectors)
    return model


@pytest.fixture
def photos(data):
    """The lower two cells of every picture show a photograph."""
    path = data / "photos.json"
    path.write_text(json.dumps({f"images/{i}.png": {"cells": [2, 3]} for i in range(8)}))
    return path


def warmed(recipe, data, *more):
    settings = recipe(*ALIGN, f"data.cells={data / 'cells.json'}", *more)
    model, processor = build_from_recipe(settings)
    with_words(model)
    set_trainable(model, settings)
    return warm_up(model, settings, CellTask(model, processor, settings, LayerCache(model, processor)))


def test_imagined_classes_are_learnt(recipe, data, photos):
    before = warmed(recipe, data, "warm_up.steps=2")
    after = warmed(recipe, data, "warm_up.steps=100")
    assert before["warm_up_imagined_right"] < 0.5 < 0.8 < after["warm_up_imagined_right"]
    assert after["warm_up_cells_right"] > 0.8


@pytest.mark.parametrize("off", ["warm_up.imagined=0", "data.imagined=false"])
def test_switched_off(off, recipe, data, photos):
    assert warmed(recipe, data, "warm_up.steps=2", off).keys() == {"warm_up_loss", "warm_up_cells_right"}


def test_without_photos_nothing_is_imagined(recipe, data):
    assert "warm_up_imagined_right" not in warmed(recipe, data, "warm_up.steps=2")


def test_photos_need_a_words_layer(recipe, data, photos):
    settings = recipe(*ALIGN, f"data.cells={data / 'cells.json'}", "warm_up.steps=2")
    model, processor = build_from_recipe(settings)
    with pytest.raises(UserError, match=r"the vision tower has no words layer: .*data\.imagined=false"):
        CellTask(model, processor, settings, LayerCache(model, processor))


def test_what_cells_are_called():
    assert class_words(3) == ["dog golden retriever", "violin", "volcano"]
    with pytest.raises(UserError, match=r"has 4 classes, the list of names 3: set warm_up\.imagined=0"):
        class_words(4)


def test_a_batch():
    imagination = Imagination(((1,), (2,)), 2, torch.full((3, 6), 5.0))
    imaginer = CellImaginer(imagination, {"a": (4, 5, 7, 8)}, 1.0, class_words(3), random.Random(0))
    numbers = {"red": 0, "dog golden retriever": 1, "violin": 2, "volcano": 3}
    sizes = set()
    for _ in range(50):
        means = VisionLayers(torch.zeros(2, 2, 9, 6), torch.zeros(2, 2, 6))
        means, words, which = imaginer(["b", "a"], means, torch.zeros(2, 9, dtype=torch.long), numbers)
        assert not which[0].any() and not words[0].any() and not means.patches[0].any()
        cells = which[1].nonzero().flatten().tolist()
        assert set(cells) <= {4, 5, 7, 8}
        assert words[1][which[1]].unique().numel() == 1 and words[1][which[1]][0] > 0
        assert not words[1][~which[1]].any()
        assert ((means.patches[1, 1] > 0).any(dim=-1) == which[1]).all() and not means.patches[1, 0].any()
        assert 1.0 <= means.patches[1, 1, cells[0], 0] <= 5.0  # a share of 0.2 to 1
        sizes.add(len(cells))
    assert sizes == {2, 4}
    assert imaginer.expected() == pytest.approx(4 * 0.75 / 3)


def test_half_of_the_cells_hang_together():
    cells = (0, 1, 2, 3, 7, 11, 15, 12)  # on a 4 × 4 grid; 12 hangs on nothing
    for seed in range(40):
        half = connected_half(cells, 4, random.Random(seed))
        assert half == (12,) or len(half) == 4
        reached, border = set(), [half[0]]
        while border:
            cell = border.pop()
            if cell in half and cell not in reached:
                reached.add(cell)
                border += [cell - 4, cell + 4]
                border += [cell - 1] * (cell % 4 > 0) + [cell + 1] * (cell % 4 < 3)
        assert reached == set(half) <= set(cells)


@pytest.mark.parametrize("cells", [None, [4], [-1], ["x"]])
def test_malformed_photos(cells, tmp_path):
    path = tmp_path / "photos.json"
    path.write_text(json.dumps({"a.png": {"cells": cells}}))
    with pytest.raises(UserError, match=r"a\.png needs cells, a list of numbers from 0 to 3"):
        read_photos(path, tmp_path, 4)


# --- in the language model's stage ---------------------------------------------------------------------------------

GROUPS = "model.fusion_kwargs={groups: [[1, 2, 3], [4]], hidden_size: 16, num_blocks: 1, num_heads: 2}"


@pytest.fixture
def imagined(data):
    """The last picture's talk imagines a class; the validation is the same."""
    entries = json.loads((data / "data.json").read_text())
    entries[7]["imagined"] = {"class": 2, "share": 0.5, "cells": [3]}
    (data / "data.json").write_text(json.dumps(entries))
    return data / "data.json"


def test_a_run(recipe, imagined, monkeypatch):
    monkeypatch.setattr(run_module, "build_from_recipe", lambda *a, **k: (with_words((p := build(*a, **k))[0]), p[1]))
    seen = []
    call = Imagination.__call__
    monkeypatch.setattr(Imagination, "__call__", lambda *args: (seen.append(args[2]), call(*args))[1])
    run(recipe(GROUPS, "export=false", "optim.max_steps=3"))  # nine samples, three at a time
    assert [(one.number, one.share, one.cells) for one in seen] == [(2, 0.5, (3,))]


build = run_module.build_from_recipe

REFUSED = {
    ("optim.max_steps=1",): "the vision tower has no words layer: leave them out with data.imagined=false",
    ("data.cache_features=false",): r"needs data\.cache_features=true: set it, or leave them out with data\.imagined",
}


@pytest.mark.parametrize("more", REFUSED)
def test_refused_before_anything_is_written(more, recipe, imagined, tmp_path):
    with pytest.raises(UserError, match=REFUSED[more]):
        run(recipe(*more))
    assert not (tmp_path / "run").exists()


def test_left_out(recipe, imagined):
    output = run(recipe("data.imagined=false", "optim.max_steps=1", "export=false"))
    assert json.loads((output / "run.json").read_text())["data"]["samples"] == 8
