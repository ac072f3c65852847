"""``igva push``: what would be uploaded, and that it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import yaml

import igva.hub
from igva.cli.main import entry
from igva.model.configuration_igva import IgvaConfig
from igva.model.modeling_igva import IgvaForConditionalGeneration
from igva.model.processing_igva import IgvaProcessor
from igva.model_card import public_name

RUN = {
    "recipe_name": "/home/me/recipes/mine.yaml",
    "overrides": ["optim.max_steps=7", "output=/home/me/runs/x", "model.init_from=../runs/stage1"],
    "recipe": {
        "stage": "instruct",
        "model": {"vision": "google/siglip-base", "text": "embedded:text", "instruction": "../parts/mine"},
        "optim": {"batch_size": 8},
    },
    "trained": ["fusion", "projector"],
    "inherited": {"projector": "/home/me/runs/stage1"},
    "learning_rates": {"fusion": 1e-3},
    "data": {"samples": 1234, "sha256": {"/home/me/patients.json": "abc123", "org/dataset": None}},
    "figures": {"steps": 7, "train_loss": 1.25},
    "versions": {"torch": "2.13.0", "git": None},
}
SCORES = {
    "settings": {"checkpoint": "mine", "zero_images": False},
    "mean": 61.25, "interval": [58.0, 64.5], "chance": 25.0, "questions": 580,
    "categories": {"General": {"accuracy": 50.0, "interval": [40.0, 60.0], "chance": 10.0, "questions": 60}},
}  # fmt: skip


@pytest.fixture(autouse=True)
def _auto_class(monkeypatch):
    """Pushing marks the classes for the rest of the process: take the mark off afterwards."""
    for cls in (IgvaConfig, IgvaForConditionalGeneration, IgvaProcessor):
        monkeypatch.setattr(cls, "_auto_class", None)


@pytest.fixture
def uploads(monkeypatch):
    """A stand-in of the hub's client that keeps what it was given."""
    kept = {}

    class Api:
        def create_repo(self, repo_id, *, private, exist_ok):
            kept["repo"], kept["private"] = repo_id, private
            return f"https://hub.example/{repo_id}"

        def repo_info(self, repo_id):
            return SimpleNamespace(private=kept["private"] and not kept.get("public already"))

        def upload_folder(self, *, repo_id, folder_path, commit_message):
            assert repo_id == kept["repo"]
            kept["files"] = {path.name: path.read_bytes() for path in folder_path.iterdir() if path.is_file()}

    monkeypatch.setattr(igva.hub, "HfApi", Api)
    monkeypatch.setattr(igva.hub, "get_token", lambda: "secret")
    return kept


def written(folder, name, content):
    folder.mkdir()
    (folder / name).write_text(json.dumps(content))
    return str(folder)


def test_what_is_uploaded_loads_and_tells_what_is_known(model_folder, uploads, tmp_path, capsys):
    run, scores = written(tmp_path / "run", "run.json", RUN), written(tmp_path / "probe", "scores.json", SCORES)
    told = ["--run", run, "--scores", scores, "--licence", "Apache-2.0", "--private"]
    told += ["--base-model", "google/siglip-base"]
    assert entry(["push", str(model_folder), "me/small", *told]) == 0
    assert capsys.readouterr().out.strip() == "https://hub.example/me/small"
    assert uploads["private"] is True
    assert {"model.safetensors", "config.json", "modeling_igva.py", "processing_igva.py"} <= set(uploads["files"])
    assert "auto_map" in json.loads(uploads["files"]["config.json"])
    card = uploads["files"]["README.md"].decode()
    _, head, body = card.split("---\n", 2)
    data = yaml.safe_load(head)
    assert data["base_model"] == ["google/siglip-base"] and data["license"] == "apache-2.0"
    assert data["library_name"] == "transformers" and data["pipeline_tag"] == "image-text-to-text"
    facts = (
        "mine.yaml",
        "1,234",
        "abc123",
        "optim.max_steps=7",
        "1.25",
        "torch 2.13.0",
        "`igva`",
        "stage1",
        "org/dataset",
    )
    for fact in facts:
        assert fact in body, fact
    assert "| probe | all | 61.2 | 58.0–64.5 | 25.0 | 580 |" in body
    assert "SmolLM2" in body and "None" not in body
    for private in ("/home", "me/", "..", "~", "output="):
        assert private not in body.replace("me/small", ""), private


def test_what_nobody_said_is_not_made_up(model_folder, tmp_path):
    assert entry(["push", str(model_folder), "me/small", "--into", str(tmp_path / "out")]) == 0
    card = (tmp_path / "out/README.md").read_text()
    assert "How it was trained is not recorded here." in card and "None are recorded here." in card
    assert "Nobody has said" in card
    assert "license" not in card and "base_model" not in card


def test_what_is_written_loads_without_igva(model_folder, tmp_path):
    assert entry(["push", str(model_folder), "me/small", "--into", str(tmp_path / "out")]) == 0
    code = """
import sys
sys.modules["igva"] = None  # an import of it would fail
from transformers import AutoModelForImageTextToText, AutoProcessor
model = AutoModelForImageTextToText.from_pretrained("out", trust_remote_code=True)
print(type(model).__name__, type(AutoProcessor.from_pretrained("out", trust_remote_code=True)).__name__)
"""
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules")}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["IgvaForConditionalGeneration", "IgvaProcessor"], done.stderr


def test_what_is_public_does_not_get_private_weights(model_folder, uploads, capsys):
    uploads["public already"] = True
    assert entry(["push", str(model_folder), "me/small", "--private"]) == 2
    assert "public" in capsys.readouterr().err and "files" not in uploads


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"settings": {"zero_images": True}}, "blind control"),
        ({"settings": {"dtype": "float32", "fingerprint": "another", "checkpoint": "theirs"}}, "another model"),
        ({"mean": "much"}, "damaged"),
        ({"questions": ...}, "damaged"),
    ],
)
def test_scores_that_are_not_the_models(model_folder, uploads, tmp_path, capsys, change, told):
    scores = {key: value for key, value in {**SCORES, **change}.items() if value is not ...}
    folder = written(tmp_path / "probe", "scores.json", scores)
    assert entry(["push", str(model_folder), "me/small", "--scores", folder]) == 2
    assert told in capsys.readouterr().err and not uploads


def test_two_scores_of_one_name(model_folder, uploads, tmp_path, capsys):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        written(tmp_path / name / "probe", "scores.json", SCORES)
    folders = [str(tmp_path / "a/probe"), str(tmp_path / "b/probe")]
    assert entry(["push", str(model_folder), "me/small", "--scores", *folders]) == 2
    assert "two folders of scores are called probe" in capsys.readouterr().err


def test_a_damaged_run(model_folder, uploads, tmp_path, capsys):
    run = written(tmp_path / "run", "run.json", {"a": 1})
    assert entry(["push", str(model_folder), "me/small", "--run", run]) == 2
    assert "damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("google/siglip-base", "google/siglip-base"), ("embedded:text", "embedded:text"), ("data.json", "data.json"),
        ("/a/b/c", "c"), ("../c", "c"), ("~/c/", "c"), ("a/b/c", "c"), ("C:\\\\me\\\\c", "c"),
        ("model.init_from=/a/b", "model.init_from=b"), ("optim.seed=1", "optim.seed=1"),
    ],
)  # fmt: skip
def test_paths_are_shown_by_their_last_part(said, shown):
    assert public_name(said) == shown


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["small"], "owner/name"),
        (["me/../small"], "no repository"),
        (["me/small", "--run", "gone"], "run.json"),
        (["me/small", "--scores", "gone"], "scores.json"),
    ],
)
def test_bad_input_is_one_line(model_folder, uploads, arguments, told, capsys):
    assert entry(["push", str(model_folder), *arguments]) == 2
    err = capsys.readouterr().err
    assert told in err and err.count("\n") == 1 and not uploads


def test_nobody_logged_in(model_folder, uploads, monkeypatch, capsys):
    monkeypatch.setattr(igva.hub, "get_token", lambda: None)
    assert entry(["push", str(model_folder), "me/small"]) == 2
    assert "hf auth login" in capsys.readouterr().err


def test_a_hub_out_of_reach_is_one_line(model_folder, uploads, monkeypatch, capsys):
    def fail(self, repo_id, **options):
        raise RuntimeError("Name or service not known\nand more")

    monkeypatch.setattr(igva.hub.HfApi, "create_repo", fail)
    assert entry(["push", str(model_folder), "me/small"]) == 2
    err = capsys.readouterr().err
    assert "could not be uploaded (Name or service not known)" in err and "--into" in err
