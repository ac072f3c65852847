"""What do worker processes bring to the vision features? Pictures per second into an empty cache.

    python benchmarks/features.py [--rounds 3] [--pictures 192] [--workers 0 2] [--tower tiny|small|half] [--json]

Photograph-like JPEG files of 640 × 480 pixels through ``LayerCache.fill``: reading, decoding, preparing, the tower,
writing. Each round takes all numbers of workers in rotating order, and ratios are taken within a round, so that load
from elsewhere falls on all of them. 0 workers is this process with all its threads; a worker has one thread.

Starting the processes (their imports) costs some seconds once a run whatever there is to do, and igva does it by itself
for ``WORTH_WORKERS`` pictures or more. So the clock starts with the first pictures that are done, and the time until
then is told beside. ``tiny`` is the tower that igva ships; the others are random ones, of the shapes of DINOv2-S/14 at
224 pixels (``small``), and of half its depth and width (``half``).
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import Dinov2Config

from igva.answering import load
from igva.model.configuration_igva import IgvaConfig
from igva.model.modeling_igva import IgvaForConditionalGeneration
from igva.model.processing_igva import IgvaProcessor
from igva.testing import text_config, tiny_image_processor, tiny_tokenizer
from igva.train import feature_cache
from igva.train.feature_cache import LayerCache

TOWERS = {"small": (384, 12, 6), "half": (192, 6, 3)}  # width, blocks, heads


def make_model(tower: str) -> tuple[IgvaForConditionalGeneration, IgvaProcessor]:
    """The default, or a random model with a real tower's shape and next to no language model."""
    if tower == "tiny":
        return load("tiny")
    torch.manual_seed(0)
    width, blocks, heads = TOWERS[tower]
    model = IgvaForConditionalGeneration(
        IgvaConfig(
            vision_config=Dinov2Config(
                hidden_size=width, num_hidden_layers=blocks, num_attention_heads=heads, image_size=224, patch_size=14
            ),
            text_config=text_config(),
            fusion="mean",
            fusion_kwargs={"num_groups": 2},
            vision_pool=2,
            image_token_id=3,
        )
    ).eval()
    processor = IgvaProcessor(
        tiny_image_processor(224), tiny_tokenizer(), num_image_tokens=model.model.fusion.num_tokens
    )
    return model, processor


def make_pictures(count: int, folder: Path) -> list[Path]:
    """Smooth noise as JPEG files: like a photograph, neither flat nor random pixel by pixel."""
    rng = np.random.default_rng(0)
    paths = [folder / f"{number}.jpg" for number in range(count)]
    for path in paths:
        coarse = Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8))
        coarse.resize((640, 480), Image.Resampling.BICUBIC).save(path, quality=90)
    return paths


class _Clock:
    """Notes when each batch is done, as ``tqdm`` is told."""

    def __init__(self, **_: Any):
        self.done: list[tuple[float, int]] = []
        _Clock.last = self

    def __enter__(self) -> _Clock:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, pictures: int) -> None:
        self.done.append((time.perf_counter(), pictures))

    @staticmethod
    def write(*_: Any, **__: Any) -> None:
        pass

    last: _Clock


def fill(
    model: IgvaForConditionalGeneration, processor: IgvaProcessor, pictures: list[Path], workers: int
) -> tuple[float, float]:
    """Pictures per second once the first are done, and the seconds until these were."""
    with tempfile.TemporaryDirectory() as folder:
        cache = LayerCache(model, processor, Path(folder), workers=workers)
        start = time.perf_counter()
        cache.fill(pictures)
    # Each of several workers has begun its first batch by then: as many batches are not counted.
    done = _Clock.last.done
    skipped = max(1, workers)
    rest = sum(count for _, count in done[skipped:])
    return rest / (done[-1][0] - done[skipped - 1][0]), done[0][0] - start


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Everything that is printed, as plain values."""
    feature_cache.tqdm = _Clock  # type: ignore[assignment,misc]
    model, processor = make_model(args.tower)
    rates: dict[int, list[float]] = {workers: [] for workers in args.workers}
    starts: dict[int, list[float]] = {workers: [] for workers in args.workers}
    with tempfile.TemporaryDirectory() as folder:
        pictures = make_pictures(args.pictures, Path(folder))
        fill(model, processor, pictures[:32], 0)  # kernels and thread pools; not what is measured
        for number in range(args.rounds):
            shift = number % len(args.workers)
            for workers in args.workers[shift:] + args.workers[:shift]:
                rate, start = fill(model, processor, pictures, workers)
                rates[workers].append(rate)
                starts[workers].append(start)
    first = rates[args.workers[0]]
    return {
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "tower": args.tower,
        "pictures": args.pictures,
        "workers": {
            workers: {
                "pictures_per_second": [round(rate, 2) for rate in found],
                "times": [round(rate / base, 2) for rate, base in zip(found, first, strict=True)],
                "seconds_to_the_first": round(statistics.median(starts[workers]), 1),
            }
            for workers, found in rates.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pictures", type=int, default=192)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--tower", choices=["tiny", *TOWERS], default="tiny")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found = measure(args)
    if args.json:
        print(json.dumps(found, indent=2))
        return
    print(f"{found['pictures']} pictures, tower {found['tower']}, {found['threads']} threads, torch {found['torch']}")
    for workers, row in found["workers"].items():
        rate, times = row["pictures_per_second"], row["times"]
        print(
            f"{workers:2d} workers  {statistics.median(rate):7.2f} pictures/s  {statistics.median(times):.2f} times "
            f"({min(times):.2f} to {max(times):.2f})  first after {row['seconds_to_the_first']} s"
        )


if __name__ == "__main__":
    main()
