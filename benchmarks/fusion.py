"""What does mixing layers cost? Time and memory from the pixels to the visual tokens, three ways side by side.

    python benchmarks/fusion.py [--pairs 10] [--batch 4] [--device cpu] [--threads N] [--json]

Shapes are those of CLIP-L/14-336 in front of a 4096-wide language model, weights random, float32. The language
model and the sentence encoder are left out: both are the same in every variant.

- ``last``: LLaVA-1.5. Every block runs, the last but one gives the patches, projector 1024 → 4096.
- ``stacked``: layer fusion the usual way. ``output_hidden_states=True`` keeps all 25 states, each group is stacked
  and averaged, the allocator mixes them, projector 2048 → 4096.
- ``igva``: the same numbers with this package: group means accumulate while the tower runs.

Timing is paired: each round runs all three, the order rotates, and the ratios are taken within a round, so that
load from elsewhere falls on all of them. On a machine that others use heavily, read the ratio of CPU seconds, with
``--threads 1`` (a second thread that waits for its core counts as work). Peak memory is what one call adds to the
idle model, each variant in a process of its own (on the CPU the growth of the resident set, on CUDA the
allocator's peak).
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModel

from igva.model.fusion_base import Fusion, FusionDims
from igva.model.fusions import build_fusion
from igva.model.projector import Projector
from igva.model.vision_layers import VisionLayers, encoder_blocks, run_tower

VARIANTS = ("last", "stacked", "igva")
# (numerator, denominator, limit): what this package promises
TIME_LIMIT = ("igva", "last", 1.04)
MEMORY_LIMIT = ("igva", "stacked", 0.6)

CLIP_L = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
}
SMALL = {**CLIP_L, "hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 8, "image_size": 56}
INSTRUCTION_DIM = 768  # all-mpnet-base-v2


class Bench:
    """One tower, two fusions and two projectors; ``run(variant)`` gives the visual tokens ``(I, N, H)``."""

    def __init__(self, batch: int, device: str, small: bool = False):
        torch.manual_seed(0)
        shapes, text_width = (SMALL, 128) if small else (CLIP_L, 4096)
        config = CLIPVisionConfig(**shapes)
        self.layers, self.width = config.num_hidden_layers, config.hidden_size
        self.patches = (config.image_size // config.patch_size) ** 2
        dims = FusionDims(self.layers, self.width, self.patches, INSTRUCTION_DIM)
        self.tower = CLIPVisionModel(config).eval().to(device)
        self.fusion: Fusion = build_fusion("igva", {}, dims).eval().to(device)
        self.projectors = {
            variant: Projector(width, text_width, text_width, act="gelu", bias=True, norm=False).eval().to(device)
            for variant, width in (("last", self.width), ("igva", 2 * self.width))
        }
        self.projectors["stacked"] = self.projectors["igva"]
        self.pixels = torch.randn(batch, 3, config.image_size, config.image_size, device=device)
        self.instruction = torch.nn.functional.normalize(torch.randn(batch, INSTRUCTION_DIM, device=device), dim=-1)

    def keep_only(self, variant: str) -> None:
        """Free what a variant does not use, so that the idle model is that variant's own."""
        self.projectors = {variant: self.projectors[variant]}

    @torch.inference_mode()
    def run(self, variant: str, images: int | None = None) -> Tensor:
        """The visual tokens of the first ``images`` pictures (default: all)."""
        features: Tensor = getattr(self, variant)(self.pixels[:images], self.instruction[:images])
        tokens: Tensor = self.projectors[variant](features)
        return tokens

    def last(self, pixels: Tensor, instruction: Tensor) -> Tensor:
        """The last but one hidden state's patches, kept by a hook: the leanest baseline there is."""
        kept: list[Tensor] = []
        block = encoder_blocks(self.tower, self.layers)[-2]
        hook = block.register_forward_hook(
            lambda module, args, output: kept.append(output[0] if isinstance(output, tuple) else output)
        )
        self.tower(pixels)
        hook.remove()
        return kept[0][:, 1:]

    def stacked(self, pixels: Tensor, instruction: Tensor) -> Tensor:
        """All hidden states first, then means over stacked groups."""
        states = self.tower(pixels, output_hidden_states=True).hidden_states
        means = [torch.stack([states[i] for i in tap]).mean(dim=0) for tap in self.fusion.taps]
        layers = torch.stack(means, dim=1)  # (I, T, 1+N, D)
        mixed = self.fusion(VisionLayers(layers[:, :, 1:], layers[:, :, 0]), instruction)
        return mixed.features  # type: ignore[no-any-return]

    def igva(self, pixels: Tensor, instruction: Tensor) -> Tensor:
        """As ``IgvaModel`` does it."""
        layers = run_tower(self.tower, pixels, self.fusion.taps, num_layers=self.layers, num_patches=self.patches)
        return self.fusion(layers, instruction).features  # type: ignore[no-any-return]


def paired_times(bench: Bench, pairs: int, device: str) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds of each call, one entry per round and variant: by the clock, and of CPU time."""
    wait: Callable[[], Any] = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    for variant in VARIANTS:
        bench.run(variant)
    clock: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    cpu: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    for turn in range(pairs):
        shift = turn % len(VARIANTS)
        for variant in VARIANTS[shift:] + VARIANTS[:shift]:
            wait()
            start, cpu_start = time.perf_counter(), time.process_time()
            bench.run(variant)
            wait()
            clock[variant].append(time.perf_counter() - start)
            cpu[variant].append(time.process_time() - cpu_start)
        print(
            f"round {turn + 1} of {pairs}",
            *(f"{v} {clock[v][-1]:.2f} s ({cpu[v][-1]:.2f} CPU)" for v in VARIANTS),
            file=sys.stderr,
        )
    return clock, cpu


def peak_memory(variant: str, batch: int, device: str, small: bool) -> int:
    """Bytes one call adds to the idle model. Run it in a fresh process: a used one has memory to reuse."""
    bench = Bench(batch, device, small)
    bench.keep_only(variant)
    bench.run(variant, images=1)  # thread pools and kernels; not what is measured
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        idle = torch.cuda.memory_allocated()
        bench.run(variant)
        return torch.cuda.max_memory_allocated() - idle
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark back to the present size
    idle = _status("VmRSS")
    bench.run(variant)
    return _status("VmHWM") - idle


def _status(field: str) -> int:
    line = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith(field))
    return int(line.split()[1]) * 1024


def memory_in_a_process(variant: str, args: argparse.Namespace) -> int:
    """``peak_memory`` of a fresh Python."""
    command = [sys.executable, __file__, "--memory-of", variant, "--batch", str(args.batch), "--device", args.device]
    done = subprocess.run(
        [*command, *(["--small"] if args.small else [])], stdout=subprocess.PIPE, check=True, text=True
    )
    return int(done.stdout.split()[-1])


def ratios(times: dict[str, list[float]], over: str, under: str) -> list[float]:
    """``over / under``, round by round."""
    return [a / b for a, b in zip(times[over], times[under], strict=True)]


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Everything that is printed, as plain values."""
    memory = {variant: memory_in_a_process(variant, args) for variant in VARIANTS}
    bench = Bench(args.batch, args.device, args.small)
    difference = (bench.run("igva") - bench.run("stacked")).abs().max().item()
    if difference > 1e-4:
        raise SystemExit(f"igva and stacked differ by {difference}: they are not the same computation")
    times, cpu = paired_times(bench, args.pairs, args.device)
    over, under, _ = TIME_LIMIT
    memory_over, memory_under, _ = MEMORY_LIMIT
    return {
        "command": " ".join(["python", "benchmarks/fusion.py", *args.argv]),
        "device": args.device,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "batch": args.batch,
        "pairs": args.pairs,
        "seconds": times,
        "median_seconds": {variant: statistics.median(values) for variant, values in times.items()},
        "peak_bytes": memory,
        "time_ratio": {f"{v}/{under}": ratios(times, v, under) for v in VARIANTS if v != under},
        "median_time_ratio": statistics.median(ratios(times, over, under)),
        "cpu_ratio": {f"{v}/{under}": ratios(cpu, v, under) for v in VARIANTS if v != under},
        "cpu_seconds": cpu,
        "memory_ratio": memory[memory_over] / memory[memory_under],
        "max_difference": difference,
    }


def spread(values: list[float]) -> str:
    """Median, least and most."""
    return f"{statistics.median(values):.3f} ({min(values):.3f}–{max(values):.3f})"


def print_table(result: dict[str, Any]) -> None:
    """The figures as a person reads them."""
    print(
        f"{'variant':<8} {'median s':>9} {'time / last':>21} {'CPU / last':>21} {'peak MB':>8} {'memory / stacked':>17}"
    )
    for variant in VARIANTS:
        wall, cpu = (spread(result[key].get(f"{variant}/last", [1.0])) for key in ("time_ratio", "cpu_ratio"))
        memory = result["peak_bytes"][variant]
        share = memory / result["peak_bytes"]["stacked"]
        seconds = result["median_seconds"][variant]
        print(f"{variant:<8} {seconds:>9.3f} {wall:>21} {cpu:>21} {memory / 1e6:>8.0f} {share:>17.2f}")
    for what, (over, under, limit), value in (
        ("time", TIME_LIMIT, result["median_time_ratio"]),
        ("memory", MEMORY_LIMIT, result["memory_ratio"]),
    ):
        verdict = "met" if value <= limit else "MISSED"
        print(f"{what} {over}/{under} {value:.3f}, at most {limit}: {verdict}")
    print(
        f"{result['device']}, {result['threads']} threads, torch {result['torch']}, batch {result['batch']}, "
        f"{result['pairs']} rounds; largest difference between stacked and igva {result['max_difference']:.1e}"
    )
    print(result["command"])


def main(argv: list[str] | None = None) -> None:
    """Parse, measure, print."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--pairs", type=int, default=10, help="rounds of all three variants (default 10)")
    parser.add_argument("--batch", type=int, default=4, help="pictures per call (default 4)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default cpu)")
    parser.add_argument("--threads", type=int, help="PyTorch's threads (default: its own choice)")
    parser.add_argument("--json", action="store_true", help="every figure as JSON instead of the table")
    parser.add_argument("--small", action="store_true", help="an 8-layer, 64-wide tower: only to see that it runs")
    parser.add_argument("--memory-of", choices=VARIANTS, help="print one variant's peak bytes (what it starts itself)")
    args = parser.parse_args(argv)
    args.argv = argv
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.memory_of:
        print(peak_memory(args.memory_of, args.batch, args.device, args.small))
        return
    result = measure(args)
    if args.json:
        print(json.dumps(result, indent=1))
    else:
        print_table(result)


if __name__ == "__main__":
    main()
