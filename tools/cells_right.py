"""How many cells a trained projector names right in pictures it has not seen, by task.

    igva probe build --split val --count 1200 --out data/probe-val
    .venv/bin/python tools/cells_right.py runs/tiny_align data/probe-val

Of each picture only the cells that do not show its most frequent word (the background) count.
"""

import argparse
import json
from collections import Counter, defaultdict
from pathlib import Path

import torch
from torch.nn import functional
from transformers.utils import logging

from igva import load
from igva.train.cells import read_cells, word_embeddings
from igva.train.feature_cache import LayerCache


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", help="output folder of an align run")
    parser.add_argument("data", type=Path, help="folder of `igva probe build`, with cells.json and questions.json")
    args = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model, processor = load(args.model, dtype="float32")
    cells = read_cells(args.data / "cells.json", args.data, processor.num_image_tokens)
    asked = json.loads((args.data / "questions.json").read_text())
    tasks = {args.data / question["image"]: question["task"] for question in asked}
    vocabulary = sorted({word for words in cells.values() for word in words})
    targets = functional.normalize(word_embeddings(model, processor, vocabulary), dim=-1)
    layers = LayerCache(model, processor)
    layers.fill(cells)
    right: dict[str, list[bool]] = defaultdict(list)
    for picture, words in cells.items():
        means = layers([picture]).to(dtype=torch.float32)
        tokens = model.model.projector.project(model.model.mix(means, None).features)[0]
        nearest = (functional.normalize(tokens, dim=-1) @ targets.T).argmax(dim=-1).tolist()
        background = Counter(words).most_common(1)[0][0]
        hits = [vocabulary[n] == word for n, word in zip(nearest, words, strict=True) if word != background]
        right[tasks[picture]] += hits
    shares = {task: sum(hits) / len(hits) for task, hits in sorted(right.items())}
    for task, share in shares.items():
        print(f"{task:20s} {share:6.1%}  of {len(right[task])}")
    print(f"{'mean of tasks':20s} {sum(shares.values()) / len(shares):6.1%}")


if __name__ == "__main__":
    main()
