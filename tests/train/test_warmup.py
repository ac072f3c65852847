"""What a visual token is taught to look like."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from igva.errors import UserError
from igva.train.run import run


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


def test_a_fusion_that_reads_the_question_is_refused_first(recipe: Any, data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the warm-up has no questions: use a fusion that needs none, such as mean"):
        run(recipe("warm_up.steps=3", f"data.cells={data}/cells.json"))
    assert not list((tmp_path / "home").rglob("*.safetensors")), "no feature was computed"
