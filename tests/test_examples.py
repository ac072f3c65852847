"""Other people's trainers, unmodified: the scripts of examples/ train a model that can then be asked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

import igva

EXAMPLES = Path(__file__).parents[1] / "examples"
ENTRIES = 4


@pytest.mark.parametrize("script", [pytest.param("train_with_trainer.py", marks=pytest.mark.slow), "train_with_trl.py"])
def test_two_steps_and_an_answer(script, model_folder, picture, tmp_path):
    pytest.importorskip("trl")
    entries = [{"image": f"{i}.png", "question": f"What is {i}?", "answer": "A hat."} for i in range(ENTRIES)]
    for i in range(ENTRIES):
        picture(i).save(tmp_path / f"{i}.png")
    (tmp_path / "data.json").write_text(json.dumps(entries))
    out = tmp_path / "out"
    command = [sys.executable, str(EXAMPLES / script), str(model_folder), str(tmp_path / "data.json"), str(out)]
    done = subprocess.run([*command, "--steps", "2"], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    before, after = load_file(model_folder / "model.safetensors"), load_file(out / "model.safetensors")
    moved = {name.split(".")[1] for name in before if not before[name].equal(after[name])}
    assert moved >= {"fusion", "projector", "language_model"}
    assert not moved & {"vision_tower", "instruction_encoder"}
    model, processor = igva.load(out)
    assert igva.answer(model, processor, picture(0), "What is 0?", max_new_tokens=3).layer_weights
