"""What the projector alone says of the photos suite: the word nearest to all of a picture's visual tokens together.

    .venv/bin/python tools/projector_readout.py runs/tiny_align_b

A fusion that reads a question is asked *What is in the picture?*. Each token's cosine with the language model's
embeddings of the probe's names becomes shares (temperature of the warm-up); a picture's are the mean of its tokens'. It
tells what is lost before the language model comes, and what after.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path

import torch
from torch.nn.functional import normalize

import igva
from igva.eval.photo_suite import photo_questions
from igva.probe.pack import nouns
from igva.train.arguments import WarmUpArguments
from igva.train.cells import word_embeddings
from igva.train.feature_cache import InstructionCache, LayerCache

BATCH = 32
QUESTION = "What is in the picture?"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path, help="an igva folder")
    args = parser.parse_args()
    model, processor = igva.load(args.model)
    names = list(nouns())
    words = normalize(word_embeddings(model, processor, names), dim=-1)
    asked = [
        (file.parent / entry["image"], entry["answer"], entry["category"])
        for file in photo_questions(["whole", "cutouts", "hands"])
        for entry in json.loads(file.read_text())
        if entry["answer"] in names
    ]
    asks = InstructionCache(model, processor)
    asks.fill([QUESTION])
    guide = asks([QUESTION]) if model.model.fusion.needs_instruction else None
    layers = LayerCache(model, processor)
    layers.fill(picture for picture, _, _ in asked)
    right: dict[str, list[bool]] = defaultdict(list)
    for start in range(0, len(asked), BATCH):
        batch = asked[start : start + BATCH]
        with torch.inference_mode():
            shown = layers([picture for picture, _, _ in batch]).to(dtype=torch.float32)
            mixed = model.model.mix(shown, None if guide is None else guide.float().expand(len(batch), -1))
            tokens = normalize(model.model.projector.project(mixed.features).float(), dim=-1)
        best = (tokens @ words.T / WarmUpArguments().temperature).softmax(dim=-1).mean(dim=1).argmax(dim=-1)
        for (_, answer, split), number in zip(batch, best.tolist(), strict=True):
            right[split].append(names[number] == answer)
    for split, each in right.items():
        print(f"{split:10s} {sum(each):4d} of {len(each):4d}  {sum(each) / len(each):6.1%}")


if __name__ == "__main__":
    main()
