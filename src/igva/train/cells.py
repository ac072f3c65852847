"""What each cell of a picture shows, as something to learn: whoever draws a picture knows it.

Every projected token is to match the language model's own input embedding of its cell's word: cosine cross-entropy over
all words, plus the squared distance to the embedding. The dense warm-up learns nothing else; a later stage may learn it
beside the answers.

Letters: ``I`` pictures, ``N'`` visual tokens, ``H`` width of the language model, ``W`` words, ``E`` instruction width.
"""

from __future__ import annotations

import dataclasses
import json
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from igva.data.imagined import Imagination
from igva.errors import UserError
from igva.model.modeling_igva import IgvaForConditionalGeneration
from igva.model.processing_igva import IgvaProcessor
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


class CellResult(NamedTuple):
    """What a batch of pictures gave.

    Attributes:
        loss: mean over the cells, with its graph.
        right: whether each cell's nearest word is its own, ``(I, N')``.
        imagined: which cells show an imagined class, ``(I, N')``.
    """

    loss: Tensor
    right: Tensor
    imagined: Tensor

    def shares(self) -> tuple[float, float]:
        """The share that is right of cells with their own word, and of imagined ones; nan where there is none."""
        own, imagined = self.right[~self.imagined], self.right[self.imagined]
        return own.float().mean().item(), imagined.float().mean().item()


class CellTask:
    """The cells of ``data.cells``, asked of a model; their words are as the model embeds them when it is made.

    Where ``photos.json`` stands beside a file of cell labels, classes are imagined on a share of its pictures
    (``warm_up.imagined``). What is missing of the pictures' layer means is computed here.

    Attributes:
        pictures: all of them, in the order of the files.

    Raises:
        UserError: a file is missing or malformed, or classes are to be imagined without a words layer.
    """

    def __init__(
        self, model: IgvaForConditionalGeneration, processor: IgvaProcessor, recipe: Recipe, layers: LayerCache
    ):
        files = _files(recipe)
        self._cells: dict[Path, list[str]] = {}
        for path, root in files:
            self._cells |= read_cells(path, root, processor.num_image_tokens)
        self.pictures = list(self._cells)
        self._imaginer = _imaginer(model, recipe, files)
        self._layers = layers
        layers.fill(self.pictures)
        counts: dict[str, float] = {**Counter(word for words in self._cells.values() for word in words)}
        if self._imaginer:
            for word in self._imaginer.words:
                counts[word] = counts.get(word, 0.0) + self._imaginer.expected()
        self._numbers = {word: number for number, word in enumerate(sorted(counts))}
        self._loss = DenseLoss(
            word_embeddings(model, processor, list(self._numbers)),
            torch.tensor([float(counts[word]) for word in self._numbers]),
            recipe.warm_up.temperature,
        ).to(model.device)
        self._model = model
        self._bf16 = recipe.optim.bf16 is True

    def __call__(
        self, pictures: Sequence[Path], instruction: Tensor | None = None, rng: random.Random | None = None
    ) -> CellResult:
        """The loss of some of the pictures.

        Args:
            instruction: ``(I, E)``, for a fusion that reads the question.
            rng: what decides on which pictures which class is imagined; default: one that goes on from call to call.
        """
        words = torch.tensor([[self._numbers[word] for word in self._cells[picture]] for picture in pictures])
        means, imagined = self._layers(pictures), torch.zeros_like(words, dtype=torch.bool)
        if self._imaginer:
            imaginer = dataclasses.replace(self._imaginer, rng=rng) if rng else self._imaginer
            means, words, imagined = imaginer(pictures, means, words, self._numbers)
        model = self._model.model
        with torch.autocast(self._model.device.type, torch.bfloat16, enabled=self._bf16):
            features = model.mix(means.to(device=self._model.device, dtype=torch.float32), instruction).features
            tokens = model.projector.project(features)  # words only: where they lie is learnt elsewhere
        loss, right = self._loss(tokens, words.to(self._model.device))
        return CellResult(loss, right.cpu(), imagined)

    def beside(self, instructions: Tensor | None, count: int, seed: str) -> CellResult:
        """The loss of pictures drawn by lot, for a step that learns something else as well.

        Args:
            instructions: of the step's own pictures, ``(I, E)``; each of those drawn gets one of them.
            count: how many.
            seed: what they, and what is imagined on them, are drawn by.
        """
        rng = random.Random(seed)
        drawn = rng.sample(self.pictures, min(count, len(self.pictures)))
        rows = None
        if instructions is not None:
            rows = instructions[torch.arange(len(drawn), device=instructions.device) % len(instructions)]
        fusion = self._model.model.fusion
        training = fusion.training
        fusion.eval()  # what it counts or draws by lot in training belongs to the step's own pictures
        result = self(drawn, rows, rng)
        fusion.train(training)
        return result


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
