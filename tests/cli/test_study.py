"""``igva study layers`` and ``igva study fusions`` as a user runs them, on a small random model."""

from __future__ import annotations

import csv
import json

import pytest

from igva.cli.main import entry
from igva.testing import save_tiny_parts

ANSWERS = ["red", "blue"]
QUICK = ["--steps", "3", "--batch-size", "4", "--width", "16", "--blocks", "1"]


@pytest.fixture
def model(model_folder):
    return str(model_folder)


@pytest.fixture
def data(tmp_path, picture, monkeypatch):
    """Train and test data of two tasks in two categories; cells of the training pictures."""
    monkeypatch.setenv("IGVA_HOME", str(tmp_path / "home"))
    train, test = [], []
    for i in range(16):
        picture(i).save(tmp_path / f"{i}.png")
        entry = {"id": str(i), "image": f"{i}.png", "task": f"t{i % 2}", "category": f"C{i % 2}", "kind": "all"}
        if i < 10:
            turns = [{"from": "human", "value": "<image>\nWhich color?"}, {"from": "gpt", "value": ANSWERS[i % 3 % 2]}]
            train.append({**entry, "conversations": turns, "choices": [ANSWERS]})
        else:
            test.append({**entry, "question": "Which color?", "answer": ANSWERS[i % 3 % 2], "choices": ANSWERS})
    (tmp_path / "train.json").write_text(json.dumps(train))
    (tmp_path / "test.json").write_text(json.dumps(test))
    (tmp_path / "cells.json").write_text(json.dumps({f"{i}.png": ["red", "blue", "cat", "dog"] for i in range(10)}))
    return tmp_path


def files(data, name="out"):
    return ["--train", str(data / "train.json"), "--test", str(data / "test.json"), "--out", str(data / name)]


def rows(data, table, name="out"):
    with (data / name / f"{table}.csv").open() as file:
        return [row[0] for row in csv.reader(file)]


def test_layers(data, model, capsys):
    assert entry(["study", "layers", *files(data), "--model", model, *QUICK, "--layers", "1-2,-1", "--seeds", "2"]) == 0
    assert "report:" in capsys.readouterr().out
    assert rows(data, "by_category") == ["", "layer 1", "layer 2", "layer 4", "blind", "chance"]
    assert {"report.html", "layers.png", "study.json", "by_task.json", "normalised.csv"} <= {
        file.name for file in (data / "out").iterdir()
    }
    settings = json.loads((data / "out/study.json").read_text())["settings"]
    assert settings["readout_per_task"] is True and settings["readout"]["steps"] == 3


def test_named_layers(data, ensemble, tmp_path):
    for part in ensemble:
        part.save_pretrained(tmp_path / "ensemble")
    common = [*files(data), "--model", str(tmp_path / "ensemble"), *QUICK]
    assert entry(["study", "layers", *common, "--layers", "2,4", "--no-blind"]) == 0
    assert rows(data, "by_category") == ["", "layer 2 (dinov2.4)", "layer 4 (efficientnet.words)", "chance"]
    common[5] = str(data / "fusions")
    assert entry(["study", "fusions", *common, "--fusions", "mean:groups=[[1,2],[4]]", "--seeds", "1"]) == 0
    assert "dinov2.2,4 0.50; efficientnet.words 0.50" in (data / "fusions/weights.csv").read_text()


def test_layers_with_one_readout_and_a_warm_up(data, model):
    arguments = ["--shared", "--no-blind", "--cells", str(data / "cells.json"), "--warm-up-steps", "2", "--layers", "1"]
    assert entry(["study", "layers", *files(data), "--model", model, *QUICK, *arguments]) == 0
    assert rows(data, "by_category") == ["", "layer 1", "chance"]
    run = json.loads((data / "out/runs/layer_1-s0.json").read_text())
    assert 0 <= run["cells_right"] <= 1


def test_fusions(data, model, capsys):
    fusions = ["single:layer=1", "dense_sti:pool=2", "igva:num_groups=2,hidden_size=16,num_heads=2,num_blocks=1"]
    command = ["study", "fusions", *files(data), "--model", model, *QUICK, "--fusions", *fusions, "--seeds", "2"]
    assert entry(command) == 0
    assert rows(data, "by_category") == ["", *fusions, "chance"]
    assert rows(data, "paired") == ["", *fusions[:2]]  # against igva
    before = (data / "out/by_category.csv").read_bytes()
    assert entry(command) == 0
    assert (data / "out/by_category.csv").read_bytes() == before


def test_what_cannot_be_measured_is_refused_at_once(data, model, capsys):
    assert (
        entry(["study", "fusions", *files(data), "--model", model, *QUICK, "--fusions", "mean", "deepstack:layers=[1]"])
        == 2
    )
    assert "adds its layers inside the language model, which a readout does not have" in capsys.readouterr().err
    test = json.loads((data / "test.json").read_text())
    for question in test:
        question["task"] += "!" * (question["task"] == "t1")
    (data / "test.json").write_text(json.dumps(test))
    command = ["study", "layers", *files(data), "--model", model, *QUICK, "--layers", "1", "--no-blind"]
    assert entry(command) == 2
    assert "--train has no question of task 't1!', which --test has" in capsys.readouterr().err
    assert not (data / "out").exists()
    assert entry([*command, "--shared"]) == 0


def test_whole_models(data, model, tmp_path, capsys):
    parts = save_tiny_parts(tmp_path / "parts")
    (tmp_path / "recipe.yaml").write_text(
        f"""
stage: instruct
output: unused
model: {{vision: {parts["vision"]}, text: {parts["text"]}, instruction: {parts["instruction"]}}}
data: {{train: {data / "train.json"}, cache_features: true}}
lora: {{rank: 2, alpha: 4}}
optim: {{batch_size: 4, max_steps: 2, save_steps: 10, workers: 0}}
"""
    )
    fusions = ["single:layer=1", "igva:num_groups=2,hidden_size=16,num_heads=2,num_blocks=1"]
    command = ["study", "fusions", *files(data), "--model", model, "--recipe", str(tmp_path / "recipe.yaml")]
    command += ["--fusions", *fusions, "--seeds", "1", "--set", "optim.learning_rate=1e-3"]
    assert entry(command) == 0
    run = json.loads(next((data / "out/runs").glob("igva*.json")).read_text())
    assert set(run["scores"]) == {str(i) for i in range(10, 16)} and run["loss"] > 0
    trained = json.loads(next((data / "out/models").glob("igva*/0/run.json")).read_text())
    assert trained["recipe"]["model"]["fusion"] == "igva" and trained["recipe"]["optim"]["learning_rate"] == 1e-3
    layers = ["study", "layers", *files(data, "full"), *command[8:12], "--layers", "1", "--set", "optim.max_steps=1"]
    assert entry(layers) == 0
    assert rows(data, "by_category", "full") == ["", "layer 1", "chance"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--layers", "9"], "layer 9 does not exist"),
        (["--layers", "one"], "'one' is neither a number"),
        (["--steps", "0"], "--steps 0: use at least 1"),
        (["--warm-up-steps", "5"], "give --cells"),
        (["--category-field", "colour"], "has no field 'colour'"),
        (["--pool", "2"], "belong to --vision"),
        (["--normalize-layers"], "belong to --vision"),
        (["--vision", "x"], "exclude each other"),
        (["--width", "30"], "a multiple of 4"),
        (["--cells", "gone.json"], "gone.json does not exist"),
    ],
)
def test_bad_input(data, model, capsys, arguments, told):
    assert entry(["study", "layers", *files(data), "--model", model, *QUICK, *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("igva: ") and told in error
    assert not (data / "out").exists()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda test: [], "no samples"),
        (lambda test: [{**test[0], "answer": "green"}], "'green' is not among its choices"),
        (lambda test: [test[0], test[0]], "two questions have the same id"),
        (lambda test: [{**test[0], "image": "0.png"}], "in both --train and --test"),
        (lambda test: [{**test[0], "image": "gone.png"}], "gone.png"),
        (lambda test: [{**test[0], "task": "new"}], "no question of task 'new'"),
    ],
)
def test_bad_data(data, model, capsys, change, told):
    test = json.loads((data / "test.json").read_text())
    (data / "test.json").write_text(json.dumps(change(test)))
    assert entry(["study", "layers", *files(data), "--model", model, *QUICK]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("fusions", "told"),
    [
        (["nothing"], "there is no fusion 'nothing'"),
        (["single:layer=77"], "layer 77 does not exist"),
        (["mean", "mean"], "named twice"),
    ],
)
def test_bad_fusions(data, model, capsys, fusions, told):
    assert entry(["study", "fusions", *files(data), "--model", model, *QUICK, "--fusions", *fusions]) == 2
    assert told in capsys.readouterr().err


def test_an_unknown_reference(data, model, capsys):
    command = ["study", "fusions", *files(data), "--model", model, *QUICK, "--fusions", "mean", "--reference", "igva"]
    assert entry(command) == 2
    assert "--reference igva is none of --fusions" in capsys.readouterr().err
