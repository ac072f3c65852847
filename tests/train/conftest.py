"""A recipe on random parts and a handful of random pictures: trains in a second."""

import json

import pytest

from igva.testing import save_tiny_parts
from igva.train.arguments import load_recipe


@pytest.fixture(scope="session")
def parts(tmp_path_factory):
    return save_tiny_parts(tmp_path_factory.mktemp("parts"))


@pytest.fixture
def data(tmp_path, picture):
    """LLaVA JSON of eight pictures, two turns each, one entry without a picture, and cell labels."""
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    entries = []
    for i in range(8):
        picture(i).save(folder / f"images/{i}.png")
        entries.append(
            {
                "id": f"s{i}",
                "image": f"images/{i}.png",
                "task": "even" if i % 2 == 0 else "odd",
                "conversations": [
                    {"from": "human", "value": f"<image>\nWhat is {i}?"},
                    {"from": "gpt", "value": f"It is {i}."},
                    {"from": "human", "value": "Sure?"},
                    {"from": "gpt", "value": "Yes."},
                ],
            }
        )
    entries.append(
        {"id": "text", "conversations": [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Hi."}]}
    )
    (folder / "data.json").write_text(json.dumps(entries))
    words = ["red", "blue", "cat", "dog"]
    (folder / "cells.json").write_text(json.dumps({f"images/{i}.png": words for i in range(8)}))
    return folder


@pytest.fixture
def recipe(parts, data, tmp_path, monkeypatch):
    """``recipe("stage=align", …)`` → a small recipe with these overrides."""
    monkeypatch.setenv("IGVA_HOME", str(tmp_path / "home"))
    text = f"""
stage: instruct
output: {tmp_path / "run"}
model:
  vision: {parts["vision"]}
  text: {parts["text"]}
  instruction: {parts["instruction"]}
  fusion: igva
  dtype: float32
  fusion_kwargs: {{num_groups: 2, hidden_size: 16, num_blocks: 1, num_heads: 2}}
data: {{train: {data / "data.json"}, cache_features: true}}
lora: {{rank: 2, alpha: 4}}
optim: {{learning_rate: 1.0e-3, batch_size: 3, max_steps: 4, logging_steps: 1, save_steps: 2, bf16: false}}
"""
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    return lambda *overrides: load_recipe(str(file), overrides)
