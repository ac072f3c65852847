"""What a visual token is taught to look like."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from igva.testing import tiny_model, tiny_processor
from igva.train.run import run
from igva.train.warmup import word_embeddings


def test_the_first_token_weighs_most() -> None:
    model = tiny_model()
    processor = tiny_processor(model)
    table = model.get_parameter("model.language_model.embed_tokens.weight").detach()
    words = ("saxophone", "red", "7")
    for word, vector in zip(words, word_embeddings(model, processor, words), strict=True):
        ids = processor.tokenizer(f" {word}", add_special_tokens=False)["input_ids"]
        if not processor.tokenizer.decode(ids[:1]).strip():  # a space by itself says nothing
            ids = ids[1:]
        weights = [0.5**place for place in range(len(ids))]
        wanted = sum(weight * table[token] for weight, token in zip(weights, ids, strict=True)) / sum(weights)
        assert torch.allclose(vector, wanted, atol=1e-6), word


def test_the_order_of_the_tokens_counts() -> None:
    model = tiny_model()
    processor = tiny_processor(model)
    one, other = word_embeddings(model, processor, ("48", "84"))
    assert not torch.allclose(one, other)


def test_labels_in_two_files_teach_what_one_does(recipe: Any, data: Path, tmp_path: Path) -> None:
    cells = json.loads((data / "cells.json").read_text())
    for name, part in (("first", list(cells)[:3]), ("second", list(cells)[3:])):
        (data / f"{name}.json").write_text(json.dumps({picture: cells[picture] for picture in part}))
    options = (
        "stage=align",
        "lora.rank=0",
        "model.fusion=mean",
        "model.fusion_kwargs={num_groups: 2}",
        "warm_up.steps=3",
    )
    ends = []
    for name, files in (("one", f"{data}/cells.json"), ("two", f"[{data}/first.json, {data}/second.json]")):
        settings = recipe(*options, "optim.max_steps=0", f"data.cells={files}", f"output={tmp_path / name}")
        ends.append(load_file(run(settings) / "trained.safetensors"))
    assert ends[0].keys() == ends[1].keys() and all(ends[0][key].equal(ends[1][key]) for key in ends[0])
