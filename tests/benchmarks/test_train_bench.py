"""The training benchmark runs, and its variants train on the same samples; its figures are read at full size only."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "train.py"

# of a packed batch, what does not keep its samples apart
KEPT = ("input_ids", "labels", "pixel_values", "instruction_input_ids", "instruction_attention_mask")


@pytest.fixture(scope="module")
def module():
    spec = importlib.util.spec_from_file_location("train_benchmark", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def bench(module, tmp_path_factory):
    return module.Bench(samples=32, pool=2, shapes=module.SMALL, folder=tmp_path_factory.mktemp("bench"))


def test_the_mix(module, bench):
    assert sum(kind.share for kind in module.MIX) == pytest.approx(1)
    sources = [record.source for record in bench.records]
    assert [sources.count(kind.name) for kind in module.MIX] == [round(32 * kind.share) for kind in module.MIX]
    assert all(bool(record.images) == (record.source != "text_only") for record in bench.records)


def test_lengths_are_what_was_drawn(module, bench):
    """Text within the stated range, up to rounding in each message; and a picture's tokens."""
    kinds = {kind.name: kind for kind in module.MIX}
    for record, length in zip(bench.records, bench.lengths, strict=True):
        kind = kinds[record.source]
        text = length - len(record.images) * (bench.model.model.fusion.num_tokens + 1)  # and the line break after it
        low, high = (tokens // module.SCALE for tokens in kind.tokens)
        assert low - kind.turns <= text <= high + kind.turns


def test_each_variant_sees_every_sample_once(module, bench):
    ids = sorted(record.id for record in bench.records)
    for variant in module.VARIANTS:
        batches = list(bench.batches(variant, seed=1))
        assert sorted(name for batch in batches for name in batch["ids"]) == ids
        assert all(batch["input_ids"].shape[1] <= module.PACK_TOKENS for batch in batches)
        assert ("position_ids" in batches[0]) == (variant.pack_tokens is not None)
        pictures = [batch for batch in batches if batch["sources"]]
        assert all(("layer_patches" in batch) == variant.cached for batch in pictures)
        assert all(("pixel_values" in batch) != variant.cached for batch in pictures)


def test_packed_and_padded_losses_are_the_same(module, bench, monkeypatch):
    assert bench.largest_difference(batches=4) < module.TOLERANCE
    # and would not be, if the samples of a row saw each other
    monkeypatch.setattr(module, "inputs_of", lambda batch: {k: batch[k] for k in batch if k in KEPT})
    assert bench.largest_difference(batches=4) > 100 * module.TOLERANCE


def test_a_step_trains(module, bench):
    before = bench.model.model.projector.linear_1.weight.detach().clone()
    epoch = bench.epoch(module.VARIANTS[-1], seed=0, steps=1)
    assert epoch.seconds > 0 and epoch.tokens > 0
    assert not bench.model.model.projector.linear_1.weight.equal(before)
    assert all(parameter.grad is None for parameter in bench.model.parameters())


def test_ratios_are_taken_within_a_round(module):
    epochs = {
        name: [module.Epoch(seconds, 1.0, 0) for seconds in each] for name, each in (("plain", (2, 9)), ("x", (1, 3)))
    }
    assert module.ratios(epochs, "seconds") == {"plain": [1.0, 1.0], "x": [2.0, 3.0]}


def test_the_figures_and_the_table(module, capsys):
    module.main(["--small", "--rounds", "1", "--samples", "16", "--json"])
    result = json.loads(capsys.readouterr().out)
    assert result["command"] == "python benchmarks/train.py --small --rounds 1 --samples 16 --json"
    assert result["max_difference"] < module.TOLERANCE
    assert result["padding"]["packed"] < result["padding"]["plain"]
    assert {len(values) for values in result["samples_per_second"].values()} == {1}
    module.print_table({**result, "median_ratio": {"packed": 1.39, "cached": 2.5}})
    table = capsys.readouterr().out
    assert "packed/plain 1.39, at least 1.4: MISSED" in table
    assert "cached/plain 2.50, at least 2.0: met" in table
    assert result["command"] in table


def test_it_stops_if_the_losses_differ(module, monkeypatch):
    monkeypatch.setattr(module.Bench, "largest_difference", lambda self, batches: 1e-3)
    with pytest.raises(SystemExit, match="differs by"):
        module.main(["--small", "--samples", "8"])
