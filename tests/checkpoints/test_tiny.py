"""The embedded default: what ships fits the recipe, and the whole model answers."""

import json
import time

import pytest
import torch
import yaml
from safetensors import safe_open

import igva
from igva.checkpoints import tiny
from igva.parts.cache import parts_present
from igva.train.arguments import load_recipe, recipe_text
from igva.train.guidance import total_variation
from igva.train.starting_model import build_from_recipe

needs_parts = pytest.mark.skipif(not parts_present(), reason="the parts are not fetched: igva models fetch tiny")


def test_what_ships():
    assert sum(file.stat().st_size for file in tiny.WEIGHTS.iterdir()) <= 20e6
    with safe_open(tiny.TRAINED, framework="pt") as file:
        parts = {name.split(".")[0] for name in file.keys()}  # noqa: SIM118 (no mapping)
        assert float(file.metadata()["lora_scale"]) == 2.0
    assert parts == {"fusion", "projector", "language_model"}
    assert (tiny.WEIGHTS / "README.md").is_file()


@pytest.mark.parametrize("name", ["tiny_instruct", "tiny_turns"])
def test_settings_are_the_recipes(name):
    shipped = json.loads(tiny.SETTINGS.read_text())
    recipe = yaml.safe_load(recipe_text(name))["model"]
    trained_with = ("init_from", "dtype", "attention")  # where and how, not what it is
    for key in recipe.keys() - trained_with:
        assert shipped[key] == recipe[key], key


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    class Full:
        def save_pretrained(self, folder):
            (folder / "config.json").write_text("{}")
            raise OSError(28, "No space left on device")

    monkeypatch.setenv("IGVA_HOME", str(tmp_path))
    monkeypatch.setattr(tiny, "fetch_parts", dict)
    monkeypatch.setattr(tiny, "_assemble", lambda: (Full(), Full()))
    with pytest.raises(igva.UserError, match="cannot be written: No space left on device"):
        tiny.tiny_folder()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.fixture(scope="module")
def loaded():
    return igva.load("tiny")


@needs_parts
def test_the_weights_listen_to_the_question(loaded, picture):
    """One picture, two questions: a third of the weight moves and more; each row sums to one, no group has it all."""
    model, processor = loaded
    rows = [
        igva.answer(model, processor, picture(), question, max_new_tokens=1).layer_weights
        for question in ("What color is the background?", "How many cats are there?")
    ]
    assert total_variation(*torch.tensor(rows)) > 1 / 3
    for row in rows:
        assert sum(row) == pytest.approx(1, abs=1e-3)
    assert max(torch.tensor(rows).mean(dim=0)) < 0.95


@needs_parts
def test_a_run_may_start_from_what_ships(loaded):
    """``model.init_from=embedded:tiny`` gives the model that `igva ask` loads.

    To rounding: the folder that is loaded may have been put together on another processor, and the turn of a narrow
    layer (drawn and made orthonormal at assembly) differs there in its last bit.
    """
    settings = ("model.init_from=embedded:tiny", "model.dtype=float32", "lora.rank=0")
    started = build_from_recipe(load_recipe("tiny_instruct", settings))[0].state_dict()
    shipped = loaded[0].state_dict()
    assert started.keys() == shipped.keys()
    for name, value in started.items():
        torch.testing.assert_close(
            value, shipped[name], rtol=0, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
        )


@needs_parts
@pytest.mark.slow
def test_answers_simple_pictures(loaded, tmp_path):
    """Far above chance on pictures it never saw; the model card has the full table."""
    from igva.data.questions import read_questions
    from igva.eval.run import evaluate
    from igva.probe import build

    questions = read_questions(build("test", tmp_path / "probe", 120, seed=5) / "questions.json")
    scores = evaluate(*loaded, questions, tmp_path / "out")
    assert scores["mean"] > 42  # chance is 28


@needs_parts
def test_loads_in_seconds(loaded):
    start = time.process_time()  # the seconds it computes, whatever runs beside it
    igva.load("tiny")
    assert time.process_time() - start < 8
