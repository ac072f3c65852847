"""The fusion benchmark runs, and its variants compute the same; its figures are read at full size only."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "fusion.py"


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("fusion_benchmark", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_variants(bench):
    shapes = bench.Bench(batch=2, device="cpu", small=True)
    tokens = {variant: shapes.run(variant) for variant in bench.VARIANTS}
    assert {tuple(t.shape) for t in tokens.values()} == {(2, 16, 128)}
    torch.testing.assert_close(tokens["igva"], tokens["stacked"], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(tokens["igva"], tokens["last"], atol=1e-3)
    # the baseline is LLaVA's feature
    states = shapes.tower(shapes.pixels, output_hidden_states=True).hidden_states
    assert torch.equal(shapes.last(shapes.pixels, shapes.instruction), states[-2][:, 1:])


def test_the_order_rotates(bench):
    class Recorder:
        ran: list[str] = []  # noqa: RUF012

        def run(self, variant):
            self.ran.append(variant)

    for times in bench.paired_times(Recorder(), pairs=3, device="cpu"):
        assert [len(values) for values in times.values()] == [3, 3, 3]
    first = Recorder.ran[3::3]
    assert sorted(first) == sorted(bench.VARIANTS)


def test_ratios_are_taken_within_a_round(bench):
    assert bench.ratios({"a": [2.0, 9.0], "b": [1.0, 3.0]}, "a", "b") == [2.0, 3.0]


def test_the_figures_and_the_table(bench, monkeypatch, capsys):
    """All but the memory, which takes three more Pythons."""
    memory = {"last": 1_000_000, "stacked": 4_000_000, "igva": 2_000_000}
    monkeypatch.setattr(bench, "memory_in_a_process", lambda variant, args: memory[variant])
    bench.main(["--small", "--pairs", "2", "--batch", "1", "--json"])
    result = json.loads(capsys.readouterr().out)
    assert result["command"] == "python benchmarks/fusion.py --small --pairs 2 --batch 1 --json"
    assert [len(values) for values in result["seconds"].values()] == [2, 2, 2]
    assert result["memory_ratio"] == 0.5
    assert result["max_difference"] < 1e-4
    bench.print_table({**result, "median_time_ratio": 1.05})
    table = capsys.readouterr().out
    assert "time igva/last 1.050, at most 1.04: MISSED" in table
    assert "memory igva/stacked 0.500, at most 0.6: met" in table


def test_it_stops_if_the_variants_differ(bench, monkeypatch):
    monkeypatch.setattr(bench, "memory_in_a_process", lambda variant, args: 1)
    monkeypatch.setattr(bench.Bench, "igva", lambda self, pixels, instruction: self.stacked(pixels, 2 * instruction))
    with pytest.raises(SystemExit, match="differ"):
        bench.main(["--small", "--pairs", "1", "--batch", "1"])


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads /proc")
def test_memory_in_a_process_of_its_own():
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--small", "--memory-of", "stacked", "--batch", "16"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    states = 9 * 16 * 17 * 64 * 4  # nine hidden states are kept
    assert states < int(done.stdout) < 100 * states
