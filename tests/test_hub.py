"""``igva push``: what would be uploaded, and that it is."""

from __future__ import annotations

import json

import pytest
import yaml
from huggingface_hub.errors import LocalTokenNotFoundError

import igva.hub
from igva.cli.main import entry
from igva.model.configuration_igva import IgvaConfig
from igva.model.modeling_igva import IgvaForConditionalGeneration
from igva.model.processing_igva import IgvaProcessor

RUN = {
    "recipe_name": "tiny_instruct",
    "overrides": ["optim.max_steps=7"],
    "recipe": {
        "stage": "instruct",
        "model": {"vision": "google/siglip-base", "text": "embedded:text", "instruction": "../mine"},
        "optim": {"batch_size": 8},
    },
    "trained": ["fusion", "projector"],
    "inherited": {},
    "learning_rates": {"fusion": 1e-3},
    "data": {"samples": 1234, "sha256": {"data.json": "abc123"}},
    "figures": {"steps": 7, "train_loss": 1.25},
    "versions": {"torch": "2.13.0", "git": None},
}
SCORES = {
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

        def upload_folder(self, *, repo_id, folder_path, commit_message):
            assert repo_id == kept["repo"]
            kept["files"] = {path.name: path.read_bytes() for path in folder_path.iterdir() if path.is_file()}

    monkeypatch.setattr(igva.hub, "HfApi", Api)
    return kept


def written(folder, name, content):
    folder.mkdir()
    (folder / name).write_text(json.dumps(content))
    return str(folder)


def test_what_is_uploaded_loads_and_tells_what_is_known(model_folder, uploads, tmp_path, capsys):
    run, scores = written(tmp_path / "run", "run.json", RUN), written(tmp_path / "probe", "scores.json", SCORES)
    told = ["--run", run, "--scores", scores, "--licence", "apache-2.0", "--private"]
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
    for fact in ("tiny_instruct", "1,234", "abc123", "optim.max_steps=7", "1.25", "torch 2.13.0", "`igva`"):
        assert fact in body, fact
    assert "| probe | all | 61.2 | 58.0–64.5 | 25.0 | 580 |" in body
    assert "SmolLM2" in body and "None" not in body


def test_what_nobody_said_is_not_made_up(model_folder, tmp_path):
    assert entry(["push", str(model_folder), "me/small", "--into", str(tmp_path / "out")]) == 0
    card = (tmp_path / "out/README.md").read_text()
    assert "How it was trained is not recorded here." in card and "None are recorded here." in card
    assert "Nobody has said" in card
    assert "license" not in card and "base_model" not in card


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
    def refuse(self, repo_id, **options):
        raise LocalTokenNotFoundError("Token is required")

    monkeypatch.setattr(igva.hub.HfApi, "create_repo", refuse)
    assert entry(["push", str(model_folder), "me/small"]) == 2
    assert "hf auth login" in capsys.readouterr().err
