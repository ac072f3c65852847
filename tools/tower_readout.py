"""Which layers tiny's vision tower should have: one small readout for each choice, all of them on the same pictures.

    igva probe build --split train --count 1600 --seed 7 --workers 2 --out data/readout-train
    igva probe build --split val --count 240 --out data/probe-val
    .venv/bin/python tools/tower_readout.py data/readout-train data/probe-val --out runs/tower-readout.json

A readout is a projector, trained as in the dense warm-up: each cell's word, classes imagined on a third of the
photographs. Of each choice is printed what it gets right:

- drawings: cells of validation pictures that do not show the picture's most frequent word;
- colours: cells of validation pictures that do, of those whose background has one colour;
- cut-outs: photographs of one thing held out of training, on backgrounds held out too, by the name that the cells
  together are nearest to, of the probe's names.
"""

import argparse
import json
import random
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from tqdm import trange
from transformers.utils import logging

from igva import build
from igva.data.imagined import Imagination
from igva.eval.photo_suite import photo_questions
from igva.model.fusion_base import FusionDims
from igva.model.fusions import build_fusion
from igva.model.projector import Projector
from igva.model.vision_layers import VisionLayers
from igva.parts.cache import fetch_parts
from igva.parts.tower import VISION_PARTS, assemble_vision, preprocessor
from igva.probe.pack import nouns
from igva.probe.scenes import COLORS
from igva.train.cells import DenseLoss, read_cells, word_embeddings
from igva.train.feature_cache import LayerCache
from igva.train.imagined_cells import CellImaginer, class_words, read_photos

DINOV2, EFFICIENTNET = [6, 7, 8, 9, 10, 11, 12], [2, 3, 4, 5, 6, 7, 8, 9]
# name -> groups of layers; the last layer of the last group is the base layer too.
CHOICES = {
    "dinov2 12": ["d12"],
    "dinov2 9-12": ["d9 d10 d11 d12"],
    "stage 3": ["e3"],
    "stage 5": ["e5"],
    "head": ["e8"],
    "words": ["e9"],
    "all but dinov2: 3 | 5 | 6 | head | words": ["e3", "e5", "e6", "e8", "e9"],
    "the same, base head": ["e3", "e5", "e6", "e9", "e8"],
    "the same, base stage 5": ["e3", "e6", "e8", "e9", "e5"],
    "2 3 | 4 5 | 6 7 | head | words": ["e2 e3", "e4 e5", "e6 e7", "e8", "e9"],
    "d6-9 | d10-12 | 3 | 5 6 | head | words": ["d6 d7 d8 d9", "d10 d11 d12", "e3", "e5 e6", "e8", "e9"],
    "d8-9 | d10-11 | 5 | 6 | head | words": ["d8 d9", "d10 d11", "e5", "e6", "e8", "e9"],
}
HIDDEN, BATCH, RATE = 1152, 16, 1e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("train", type=Path, help="folder of `igva probe build --split train`")
    parser.add_argument("val", type=Path, help="folder of `igva probe build --split val`")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--choices", nargs="*", help="of the choices, those whose number (from 0) is named")
    parser.add_argument("--concat", action="store_true", help="concatenate the groups in place of their mean")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    readout = Readout(args.train, args.val)
    chosen = [list(CHOICES)[int(number)] for number in args.choices] if args.choices else list(CHOICES)
    rows = json.loads(args.out.read_text()) if args.out.exists() else {}
    for name in chosen:
        key = name + (", concatenated" if args.concat else "")
        rows[key] = readout(CHOICES[name], args.steps, args.concat)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(rows, indent=1) + "\n")
        print(f"{key:55s} " + "  ".join(f"{what} {share:6.1%}" for what, share in rows[key].items()), flush=True)


class Readout:
    """The pictures' layers, one by one, and what is to be read out of them."""

    def __init__(self, train: Path, val: Path):
        self.names = [f"d{n}" for n in DINOV2] + [f"e{n}" for n in EFFICIENTNET]
        with tempfile.TemporaryDirectory() as folder:
            tower = assemble_vision(fetch_parts(("dinov2", *VISION_PARTS)), DINOV2, EFFICIENTNET, ())
            tower.save_pretrained(folder)
            Path(folder, "preprocessor_config.json").write_text(json.dumps(preprocessor()))
            self.model, self.processor = build(
                folder,
                "embedded:text",
                "embedded:instruction",
                fusion="mean",
                fusion_kwargs={"groups": [[1]], "base_layer": 1},
                chat_template="chatml",
            )
        taps = [(number,) for number in range(1, len(self.names) + 1)]
        self.cache = LayerCache(self.model, self.processor, taps=taps)
        self.train, self.val = (read_cells(folder / "cells.json", folder, 64) for folder in (train, val))
        self.photos = read_photos(train / "photos.json", train, 64)
        (file,) = photo_questions(["cutouts"])
        known = nouns()
        self.cutouts = {
            file.parent / entry["image"]: entry["answer"]
            for entry in json.loads(file.read_text())
            if entry["answer"] in known
        }
        self.cache.fill([*self.train, *self.val, *self.cutouts])
        layer, vectors = self.model.model.vision_tower.words_layer()
        self.words_layer, self.vectors = layer, vectors
        self.class_words = class_words(len(vectors))
        counts = Counter(word for words in self.train.values() for word in words)
        extra = set(self.class_words) | set(known) | set(COLORS)
        self.vocabulary = {word: n for n, word in enumerate(sorted({*counts, *extra}))}
        self.counts = torch.tensor([float(counts.get(word, 8)) for word in self.vocabulary])
        self.targets = word_embeddings(self.model, self.processor, list(self.vocabulary))

    def __call__(self, groups: list[str], steps: int, concat: bool) -> dict[str, float]:
        torch.manual_seed(0)
        layers = [[self.names.index(name) for name in group.split()] for group in groups]
        used = sorted({place for group in layers for place in group})
        numbers = [[used.index(place) + 1 for place in group] for group in layers]
        kwargs: dict[str, Any] = {"groups": numbers, "base_layer": numbers[-1][-1]}
        fusion = build_fusion("mean", kwargs, FusionDims(len(used), 384, 64, None))
        width = 384 * len(numbers) if concat else fusion.output_dim
        projector = Projector(width, HIDDEN, self.targets.shape[1], "gelu", bias=True, norm=True)
        place = self.names.index("e9")
        imaginer = None
        if [place] in layers:
            taps = [tuple(group) for group in numbers]
            imagination = Imagination(taps, used.index(place) + 1, self.vectors)
            imaginer = CellImaginer(imagination, self.photos, 0.33, self.class_words, random.Random(0))
        self._train(projector, fusion, imaginer, layers, steps, concat)
        return self._measured(projector, fusion, layers, concat)

    def _groups(self, pictures: list[Path], layers: list[list[int]]) -> VisionLayers:
        """The mean of each group's layers."""
        places = sorted({place for group in layers for place in group})
        read = self.cache(pictures, places)
        at = [[places.index(place) for place in group] for group in layers]
        patches = torch.stack([read.patches[:, group].float().mean(dim=1) for group in at], dim=1)
        descriptors = torch.stack([read.descriptors[:, group].float().mean(dim=1) for group in at], dim=1)
        return VisionLayers(patches, descriptors)

    @staticmethod
    def _features(fusion: Any, means: VisionLayers, concat: bool) -> Tensor:
        means = means.normalized()
        if concat:
            return means.patches.transpose(1, 2).flatten(2)
        base = VisionLayers(means.patches[:, -1:], means.descriptors[:, -1:])
        both = VisionLayers(
            torch.cat([base.patches, means.patches], 1), torch.cat([base.descriptors, means.descriptors], 1)
        )
        features: Tensor = fusion(both, None).features
        return features

    def _train(
        self, projector: Any, fusion: Any, imaginer: Any, layers: list[list[int]], steps: int, concat: bool
    ) -> None:
        loss_of = DenseLoss(self.targets, self.counts, 0.05)
        optimizer = torch.optim.AdamW(projector.parameters(), lr=RATE, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, steps, pct_start=0.05)
        rng, pictures = random.Random(0), list(self.train)
        for _ in trange(steps, leave=False):
            batch = rng.sample(pictures, BATCH)
            words = torch.tensor([[self.vocabulary[word] for word in self.train[p]] for p in batch])
            means = self._groups(batch, layers)
            if imaginer:
                means, words, _ = imaginer(batch, means, words, self.vocabulary)
            loss, _ = loss_of(projector.project(self._features(fusion, means, concat)), words)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()

    @torch.inference_mode()
    def _measured(self, projector: Any, fusion: Any, layers: list[list[int]], concat: bool) -> dict[str, float]:
        words = list(self.vocabulary)
        targets = functional.normalize(self.targets, dim=-1)

        def cosines(picture: Path) -> Tensor:
            tokens = projector.project(self._features(fusion, self._groups([picture], layers), concat))[0]
            return functional.normalize(tokens, dim=-1) @ targets.T  # (N, W)

        drawn, plain = [], []
        for picture, told in self.val.items():
            nearest = cosines(picture).argmax(dim=-1).tolist()
            background = Counter(told).most_common(1)[0][0]
            for n, word in zip(nearest, told, strict=True):
                (plain if word == background else drawn).append(words[n] == word)
        # The names, each with the classes that are called so first.
        names = sorted(nouns())
        called = [[n for n, word in enumerate(words) if word == name or word.startswith(f"{name} ")] for name in names]
        right = []
        for picture, answer in self.cutouts.items():
            shares = (cosines(picture) / 0.05).softmax(dim=-1).sum(dim=0)
            best = max(range(len(names)), key=lambda k: float(shares[called[k]].sum()))
            right.append(names[best] == answer)
        lists = {"drawings": drawn, "colours": plain, "cut-outs": right}
        return {what: round(sum(hits) / len(hits), 4) for what, hits in lists.items()}


if __name__ == "__main__":
    main()
