"""Both studies that train, from their runs to their tables, on a world whose truth is known."""

from __future__ import annotations

import csv
import json

import pytest

from igva.errors import UserError
from igva.study.fusions import readout_run as fusion_run
from igva.study.fusions import study_fusions
from igva.study.layers import parse_layers, study_layers
from igva.study.layers import readout_run as layer_run
from igva.study.paired import holm
from igva.study.readout import ReadoutSettings
from igva.study.trials import mean_and_error, parse_variants

SMALL = ReadoutSettings(steps=100, batch_size=32, width=32, blocks=1, learning_rate=3e-3, fusion_lr=3e-3)
SETTINGS = {"form": "readout", "train_questions": 384}


def table(out, name):
    with (out / f"{name}.csv").open() as file:
        return {row[0]: row for row in csv.reader(file)}


@pytest.mark.parametrize("per_task", [True, False])
def test_layers_are_found_where_they_were_planted(material, dims, tmp_path, per_task):
    run = layer_run(material, SMALL, dims, per_task)
    report = study_layers(run, [1, 2, 3], material.test, tmp_path, seeds=1, blind=True, settings=SETTINGS)
    rows = table(tmp_path, "by_category")
    color, shape = rows[""].index("Fine-Grained"), rows[""].index("General")
    assert float(rows["layer 1"][color]) > 95 > 50 > float(rows["layer 1"][shape])
    assert float(rows["layer 3"][shape]) > 95 > 50 > float(rows["layer 3"][color])
    assert float(rows["blind"][color]) < 50 and float(rows["chance"][color]) == 25
    assert float(table(tmp_path, "normalised")["layer 1"][1]) == 1
    html = report.read_text()
    assert (
        "Fine-Grained: best is layer 1" in html
        and "points above layer 3 (95 %: " in html
        and "://" not in html.replace("http://www.w3.org", "")
    )


def test_fusions_are_ranked_and_a_second_call_trains_nothing(material, dims, tmp_path):
    variants = parse_variants(
        ["single:layer=1", "mean:num_groups=4", "igva:hidden_size=32,num_blocks=1,level_embeddings=true"], dims
    )
    run = fusion_run(material, SMALL, dims)
    options = {"dims": dims, "seeds": 2, "reference": "single:layer=1", "settings": SETTINGS}
    study_fusions(run, variants, material.test, tmp_path, **options)
    rows = table(tmp_path, "paired")
    assert float(rows["mean:num_groups=4"][1]) > 20 and float(rows["mean:num_groups=4"][4]) < 0.01
    assert rows["mean:num_groups=4"][5] == "2 of 2"
    scores = table(tmp_path, "by_category")
    assert list(scores) == ["", *(variant.label for variant in variants), "chance"]
    costs = table(tmp_path, "cost")
    assert costs["single:layer=1"][1] == "no" and costs[variants[2].label][1] == "yes"
    assert int(costs[variants[2].label][3]) == sum(p.numel() for p in variants[2].build(dims).parameters())

    before = {file.name: file.read_bytes() for file in (tmp_path / "runs").iterdir()}
    assert len(before) == 7

    def never(variant, seed):
        raise AssertionError("it is there already")

    study_fusions(never, variants, material.test, tmp_path, **options)
    assert before == {file.name: file.read_bytes() for file in (tmp_path / "runs").iterdir()}
    with pytest.raises(UserError, match="was made with train_questions 384, now it is 9"):
        study_fusions(never, variants, material.test, tmp_path, **options | {"settings": {"train_questions": 9}})


def test_named_layers(material, dims, tmp_path):
    """Names stand beside the numbers in what is written; the runs are those of a study without."""
    names = ["v.low", "v.2", "v.3", "v.top"]
    quick = ReadoutSettings(steps=2, width=16, blocks=1)
    run = layer_run(material, quick, dims, False)
    for out in (tmp_path / "plain", tmp_path / "named"):
        named = names if out.name == "named" else None
        study_layers(run, [1, 4], material.test, out, seeds=1, blind=True, names=named, settings=SETTINGS)
    assert list(table(tmp_path / "plain", "normalised")) == ["layer", "layer 1", "layer 4"]
    assert list(table(tmp_path / "named", "normalised")) == ["layer", "layer 1 (v.low)", "layer 4 (v.top)"]
    assert list(table(tmp_path / "named", "by_task"))[1:3] == ["layer 1 (v.low)", "layer 4 (v.top)"]
    files = [{file.name for file in (tmp_path / out / "runs").iterdir()} for out in ("plain", "named")]
    assert files[0] == files[1] and "layer_1-s0.json" in files[0]

    variants = parse_variants(["mean:num_groups=2", "single"], dims)
    options = {"dims": dims, "seeds": 1, "reference": "single", "settings": SETTINGS}
    for out, named, told in (
        ("plain", None, "0.50 0.50"),
        ("named", names, "v.low,2 0.50; v.3,top 0.50"),
    ):
        run = fusion_run(material, quick, dims)
        study_fusions(run, variants, material.test, tmp_path / "fusions" / out, names=named, **options)
        assert table(tmp_path / "fusions" / out, "weights")["mean:num_groups=2"][2] == told


def test_a_stopped_study_goes_on(material, dims, tmp_path):
    run, calls = fusion_run(material, ReadoutSettings(steps=2, width=16, blocks=1), dims), []

    def stopping(variant, seed):
        calls.append((variant.label, seed))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return run(variant, seed)

    variants = parse_variants(["single:layer=1", "single:layer=3"], dims)
    options = {"dims": dims, "seeds": 2, "reference": "single:layer=1", "settings": SETTINGS}
    with pytest.raises(KeyboardInterrupt):
        study_fusions(stopping, variants, material.test, tmp_path, **options)
    study_fusions(stopping, variants, material.test, tmp_path, **options)
    assert calls == [("single:layer=1", 0), ("single:layer=3", 0), ("single:layer=1", 1), ("single:layer=1", 1),
                     ("single:layer=3", 1)]  # fmt: skip


def test_layer_lists():
    assert parse_layers("1-3,-1,7", 12) == [1, 2, 3, 7, 12]
    assert parse_layers("0", 12) == [0]
    for text, told in (("1-13", "layer 13 does not exist"), ("x", "'x' is neither"), ("", "'' is neither")):
        with pytest.raises(UserError, match=told):
            parse_layers(text, 12)


def test_means_errors_and_corrections():
    assert mean_and_error([1.0, 2.0, 3.0]) == (2.0, pytest.approx(1 / 3**0.5))
    assert mean_and_error([5.0]) == (5.0, None)
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == {"a": 0.03, "b": 0.06, "c": 0.06}


def test_the_settings_file_is_readable(material, dims, tmp_path):
    run = fusion_run(material, ReadoutSettings(steps=2, width=16, blocks=1), dims)
    variants = parse_variants(["single:layer=1"], dims)
    study_fusions(
        run, variants, material.test, tmp_path, dims=dims, seeds=1, reference="single:layer=1", settings=SETTINGS
    )
    assert json.loads((tmp_path / "study.json").read_text())
