"""Where a visual token lies, in the language model's own words."""

import json

import pytest
import torch

from igva.checkpoints.trained import TRAINED_FILE, read_trained
from igva.errors import UserError
from igva.testing import tiny_model, tiny_processor
from igva.train.cells import word_embeddings
from igva.train.place_words import PLACES, add_place_words
from igva.train.run import run


def placed(amount, **settings):
    """What was added to each token's position ``(N', H)``, and the four words."""
    model = tiny_model(**settings)
    processor = tiny_processor(model)
    before = model.model.projector.positions.weight.detach().clone()
    add_place_words(model, processor, amount)
    return model.model.projector.positions.weight.detach() - before, word_embeddings(model, processor, PLACES)


def test_each_word_is_strongest_at_its_edge():
    added, (left, right, top, bottom) = placed(1.0, visual_positions=True)
    side = int(len(added) ** 0.5)
    grid = added.view(side, side, -1)
    edge = 1 - 1 / side
    corners = {(0, 0): (left, top), (0, -1): (right, top), (-1, 0): (left, bottom), (-1, -1): (right, bottom)}
    for (row, column), (first, second) in corners.items():
        torch.testing.assert_close(grid[row, column], edge * (first + second), atol=1e-6, rtol=1e-5)
    # What differs within a row is left and right, within a column top and bottom.
    torch.testing.assert_close(grid[0, 0] - grid[0, -1], grid[-1, 0] - grid[-1, -1], atol=1e-6, rtol=1e-5)
    half = placed(0.5, visual_positions=True)[0]
    torch.testing.assert_close(half, added / 2, atol=1e-6, rtol=1e-5)


def test_tokens_that_form_no_square():
    model = tiny_model(visual_positions=True)
    model.model.projector.positions.weight = torch.nn.Parameter(torch.zeros(6, 32))
    with pytest.raises(UserError, match="6 visual tokens form no square"):
        add_place_words(model, tiny_processor(model), 1.0)


def test_a_run_starts_from_them(recipe, tmp_path):
    options = ("model.visual_positions=true", "optim.max_steps=0", "export=false")
    plain = run(recipe(*options, f"output={tmp_path / 'plain'}"))
    told = run(recipe(*options, "warm_up.place_words=1", f"output={tmp_path / 'told'}"))
    before, after = (read_trained(folder / TRAINED_FILE)[0] for folder in (plain, told))
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert changed == ["projector.positions.weight"]
    assert json.loads((told / "run.json").read_text())["recipe"]["warm_up"]["place_words"] == 1.0


CONTRADICTIONS = {
    ("model.visual_positions=true", "trained=[fusion]"): "add projector to trained",
    (): r"set model\.visual_positions=true",
    ("model.retrofit=somewhere", "model.vision=''", "model.text=''"): "has no visual positions",
}


@pytest.mark.parametrize("settings", CONTRADICTIONS)
def test_what_it_does_not_go_with(settings, recipe):
    with pytest.raises(UserError, match=CONTRADICTIONS[settings]):
        recipe("warm_up.place_words=1", *settings)
