"""A checkpoint saved with its code loads where igva is not installed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from igva.model.configuration_igva import IgvaConfig
from igva.model.modeling_igva import IgvaForConditionalGeneration
from igva.model.processing_igva import IgvaProcessor
from igva.testing import ENSEMBLE

SCRIPT = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "igva":
            raise ModuleNotFoundError("igva is not installed here", name=name)

sys.meta_path.insert(0, Blocked())
try:
    import igva
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("igva could be imported: this test would show nothing")

import copy
import torch
torch.set_num_threads(1)
from PIL import Image
from safetensors.torch import save_file
from transformers import AutoModelForImageTextToText, AutoProcessor

folder, picture, out = sys.argv[1:]
model = AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
assert type(model).__module__.startswith("transformers_modules."), type(model)
assert type(processor).__module__.startswith("transformers_modules."), type(processor)
content = [{"type": "image", "image": Image.open(picture)}, {"type": "text", "text": "What?"}]
chat = [{"role": "user", "content": content}]
inputs = processor.apply_chat_template(chat, tokenize=True, return_dict=True, return_tensors="pt")
with torch.no_grad():
    logits = copy.deepcopy(model)(**inputs).logits
save_file({"logits": logits, "input_ids": inputs["input_ids"]}, out)
"""


@pytest.fixture
def auto_class(monkeypatch):
    """``register_for_auto_class`` marks the classes for the rest of the process: take the mark off afterwards."""
    for cls in (IgvaConfig, IgvaForConditionalGeneration, IgvaProcessor):
        monkeypatch.setattr(cls, "_auto_class", None)
    IgvaConfig.register_for_auto_class()
    IgvaForConditionalGeneration.register_for_auto_class("AutoModelForImageTextToText")
    IgvaProcessor.register_for_auto_class()


@pytest.mark.usefixtures("auto_class")
@pytest.mark.parametrize("tower", ["clip", ENSEMBLE])
def test_remote_code(tower, make, user, encode, picture, tmp_path):
    model, processor = make("igva", tower)
    folder = tmp_path / "checkpoint"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    assert (folder / "modeling_igva.py").exists() and (folder / "fusion_igva.py").exists()
    picture(3).save(tmp_path / "picture.png")
    inputs = encode(processor, user("What?", Image.open(tmp_path / "picture.png")), add_generation_prompt=False)
    with torch.no_grad():
        expected = model(**inputs).logits
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder), str(tmp_path / "picture.png"), str(tmp_path / "out")],
        env={**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    got = load_file(tmp_path / "out")
    assert torch.equal(got["input_ids"], inputs["input_ids"])
    assert torch.equal(got["logits"], expected)
