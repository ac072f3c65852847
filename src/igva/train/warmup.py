"""Dense warm-up: each visual token learns the word drawn in its cell, before the language model is touched.

Whoever draws a picture knows what each cell of it shows. The projector is trained alone, on cached layer means, so
that every projected token matches the language model's own input embedding of that word: cosine cross-entropy over
all words, plus the squared distance to the embedding.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm
from transformers import get_cosine_schedule_with_warmup

from igva.data.imagined import Imagination
from igva.errors import UserError
from igva.model.modeling_igva import IgvaForConditionalGeneration
from igva.model.processing_igva import IgvaProcessor
from igva.model.vision_layers import VisionLayers
from igva.train.arguments import Recipe
from igva.train.feature_cache import LayerCache
from igva.train.imagined_cells import CellImaginer, class_words, read_photos

PHOTOS = "photos.json"  # beside the cell labels: which cells show a photograph


def read_cells(path: Path, image_root: Path, num_tokens: int) -> dict[Path, list[str]]:
    """Picture → the word of each visual token's cell, row by row.

    Raises:
        UserError: the file is missing, or a picture has another number of cells than visual tokens.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist: check data.cells")
    cells = {image_root / name: words for name, words in json.loads(path.read_text()).items()}
    for picture, words in cells.items():
        if len(words) != num_tokens:
            raise UserError(f"{path}: {picture.name} has {len(words)} cells, the model has {num_tokens} visual tokens")
    return cells


def word_embeddings(model: IgvaForConditionalGeneration, processor: IgvaProcessor, words: Sequence[str]) -> Tensor:
    """The language model's own input embedding of each word: ``(W, H)``.

    Of several tokens each weighs half as much as the one before: their order would be lost in a plain mean, and 48
    would be 84. A leading space that is a token by itself says nothing.
    """
    table = model.get_parameter("model.language_model.embed_tokens.weight").detach().float()
    rows = []
    for word in words:
        ids = processor.tokenizer(f" {word}", add_special_tokens=False)["input_ids"]
        if len(ids) > 1 and not processor.tokenizer.decode(ids[:1]).strip():
            ids = ids[1:]
        weights = 0.5 ** torch.arange(len(ids), device=table.device)
        rows.append((weights / weights.sum()) @ table[ids])
    return torch.stack(rows)


class DenseLoss(nn.Module):
    """Cosine cross-entropy over the words plus the squared distance to the word's embedding.

    Rare words weigh more: most cells are background.
    """

    targets: Tensor
    word_weights: Tensor

    def __init__(self, targets: Tensor, counts: Tensor, temperature: float):
        super().__init__()
        self.register_buffer("targets", targets)  # (W, H)
        weights = counts.clamp_min(1).float().rsqrt()
        self.register_buffer("word_weights", weights / weights.mean())
        self.temperature = temperature

    def forward(self, tokens: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens ``(I, N', H)``, word numbers ``(I, N')`` → loss, and whether each cell's nearest word is right."""
        flat, wanted = tokens.flatten(0, 1).float(), words.flatten()
        logits = nn.functional.normalize(flat, dim=-1) @ nn.functional.normalize(self.targets, dim=-1).T
        word_loss = nn.functional.cross_entropy(logits / self.temperature, wanted, weight=self.word_weights)
        scale = self.targets.pow(2).mean()  # embeddings are small numbers: measure the distance in their own size
        distance = (flat - self.targets[wanted]).pow(2).mean() / scale
        return word_loss + distance, (logits.argmax(-1) == wanted).view_as(words)


def warm_up(
    model: IgvaForConditionalGeneration, processor: IgvaProcessor, recipe: Recipe, layers: LayerCache
) -> dict[str, float]:
    """Train the projector on cell labels; returns means over the last tenth of the steps: loss, and accuracy.

    Where ``photos.json`` stands beside the cell labels, classes are imagined on a share of its pictures
    (``warm_up.imagined``); these cells have an accuracy of their own.

    Raises:
        UserError: the fusion needs a question, or classes are to be imagined without a words layer.
    """
    if model.model.fusion.needs_instruction:
        raise UserError("the warm-up has no questions: use a fusion that needs none, such as mean")
    settings = recipe.warm_up
    files = _files(recipe)
    cells: dict[Path, list[str]] = {}
    for path, root in files:
        cells |= read_cells(path, root, processor.num_image_tokens)
    imaginer = _imaginer(model, recipe, files)
    layers.fill(cells)
    counts: dict[str, float] = {**Counter(word for words in cells.values() for word in words)}
    if imaginer:
        for word in imaginer.words:
            counts[word] = counts.get(word, 0.0) + imaginer.expected()
    vocabulary = {word: number for number, word in enumerate(sorted(counts))}
    loss_of = DenseLoss(
        word_embeddings(model, processor, list(vocabulary)),
        torch.tensor([float(counts[word]) for word in vocabulary]),
        settings.temperature,
    ).to(model.device)
    projector = model.model.projector
    optimizer = torch.optim.AdamW(projector.parameters(), lr=settings.learning_rate, weight_decay=0.0)
    schedule = get_cosine_schedule_with_warmup(optimizer, max(1, settings.steps // 20), settings.steps)
    generator = torch.Generator().manual_seed(recipe.optim.seed)
    pictures = list(cells)
    history: list[_Step] = []
    with tqdm(total=settings.steps, desc="warm-up", unit="step") as bar:
        while len(history) < settings.steps:
            order = torch.randperm(len(pictures), generator=generator).tolist()
            for start in range(0, len(order), settings.batch_size):
                batch = [pictures[i] for i in order[start : start + settings.batch_size]]
                words = torch.tensor([[vocabulary[word] for word in cells[p]] for p in batch])
                means, which = layers(batch), torch.zeros_like(words, dtype=torch.bool)
                if imaginer:
                    means, words, which = imaginer(batch, means, words, vocabulary)
                loss, right = _step(model, means, words, loss_of, optimizer, recipe.optim.bf16 is True)
                history.append(_Step(loss, _share(right[~which]), _share(right[which])))
                schedule.step()
                bar.update()
                bar.set_postfix(history[-1].shown())
                if len(history) == settings.steps:
                    break
    last = torch.tensor(history[-max(1, settings.steps // 10) :]).nanmean(dim=0).tolist()
    names = ("warm_up_loss", "warm_up_cells_right", "warm_up_imagined_right")
    return {name: round(value, 4) for name, value in zip(names, last, strict=True) if value == value}


class _Step(NamedTuple):
    """Loss, and the share of cells that are right: those with their own word, and imagined ones; nan where none is."""

    loss: float
    cells: float
    imagined: float

    def shown(self) -> dict[str, str]:
        shares = {"cells": self.cells, "imagined": self.imagined}
        return {"loss": f"{self.loss:.3f}"} | {name: f"{share:.1%}" for name, share in shares.items() if share == share}


def _share(right: Tensor) -> float:
    return right.float().mean().item()


def _files(recipe: Recipe) -> list[tuple[Path, Path]]:
    """Each file of cell labels, and the folder that its pictures' paths start from."""
    cells = recipe.data.cells or []
    paths = [Path(cells)] if isinstance(cells, str) else [Path(name) for name in cells]
    return [(path, Path(recipe.data.image_root or path.parent)) for path in paths]


def _imaginer(
    model: IgvaForConditionalGeneration, recipe: Recipe, files: Sequence[tuple[Path, Path]]
) -> CellImaginer | None:
    """What imagines classes; None where the recipe wants none or no picture has a photographed cell.

    Raises:
        UserError: there is no words layer, or its classes have no names.
    """
    share = recipe.warm_up.imagined if recipe.data.imagined else 0.0
    patches = model.model.fusion.dims.num_patches
    photos: dict[Path, tuple[int, ...]] = {}
    for path, root in files if share else ():
        photos |= read_photos(path.with_name(PHOTOS), root, patches)
    if not photos:
        return None
    imagination = Imagination.of(model)
    words = class_words(imagination.num_classes)
    return CellImaginer(imagination, photos, share, words, random.Random(recipe.optim.seed))


def _step(
    model: IgvaForConditionalGeneration,
    means: VisionLayers,
    words: Tensor,
    loss_of: DenseLoss,
    optimizer: Any,
    bf16: bool,
) -> tuple[float, Tensor]:
    """One step; the loss, and whether each cell is right, ``(I, N')``."""
    with torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
        features = model.model.mix(means.to(device=model.device, dtype=torch.float32), None).features
        tokens = model.model.projector.project(features)  # words only: where they lie is learnt later
    loss, right = loss_of(tokens, words.to(model.device))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item(), right.cpu()
