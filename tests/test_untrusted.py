"""A folder of somebody else's: no pickle is opened, no code is run or asked for."""

from __future__ import annotations

import ast
import builtins
import contextlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import igva
from igva.answering import load
from igva.errors import UserError
from igva.part_sources import resolve_part
from igva.testing import tiny_model, tiny_processor

SOURCE = Path(igva.__file__).parent


@pytest.fixture
def folder(tmp_path):
    model = tiny_model()
    model.save_pretrained(tmp_path / "model")
    tiny_processor(model).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def nobody_asks(monkeypatch):
    def asked(*_):
        raise AssertionError("somebody is asked on standard input")

    monkeypatch.setattr(builtins, "input", asked)


@pytest.mark.parametrize("named", ["pytorch_model.bin", "../elsewhere.safetensors", "/etc/passwd", 5])
def test_an_index_names_safetensors_of_its_own_folder(folder, named, monkeypatch):
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder / "decoy.safetensors")
    torch.save(weights, folder / "pytorch_model.bin")
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, named)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("a pickle was opened"))
    for use in (load, resolve_part):
        with pytest.raises(UserError, match="no safetensors file of this folder"):
            use(folder)


@pytest.mark.parametrize("text", ["{", "[]", '{"weight_map": 3}', "{}"])
def test_a_damaged_index_is_one_line(folder, text):
    (folder / "model.safetensors.index.json").write_text(text)
    with pytest.raises(UserError, match=r"index\.json is damaged"):
        load(folder)


def test_code_of_a_folder_is_neither_run_nor_asked_for(folder, nobody_asks, tmp_path):
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "evil",
        "auto_map": {"AutoConfig": "evil.Evil", "AutoModelForImageTextToText": "evil.Evil"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError):
        load(folder)
    assert not (tmp_path / "ran").exists()


def test_code_of_a_tokenizer_is_neither_run_nor_asked_for(folder, nobody_asks, tmp_path):
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text()) | {
        "tokenizer_class": "Evil",
        "auto_map": {"AutoTokenizer": ["evil.Evil", None]},
    }
    path.write_text(json.dumps(settings))
    with contextlib.suppress(UserError):  # what stands beside the code may be enough
        load(folder)
    assert not (tmp_path / "ran").exists()


def test_every_auto_class_is_told():
    """Each ``Auto….from_pretrained`` of ours says ``trust_remote_code=False``."""
    silent = []
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            owner = getattr(node.func.value, "id", "")
            if node.func.attr == "from_pretrained" and owner.startswith("Auto"):
                said = [each.value for each in node.keywords if each.arg == "trust_remote_code"]
                if not (said and isinstance(said[0], ast.Constant) and said[0].value is False):
                    silent.append(f"{path.name}:{node.lineno}")
    assert not silent
