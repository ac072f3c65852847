"""A small readout in a language model's place: how much of an answer stands in the visual features.

One fusion (or one layer) and one readout are trained together from frozen features; the readout is given the question's
words, looks the answer up in the visual tokens and chooses among the question's own choices. It is the same for every
fusion, so what differs between two runs is what the fusion hands on.

Where the words drawn in the cells of the training pictures are known, the readout first learns to name each visual
token (the dense warm-up of igva's align stage), with a fusion that reads no question in place of one that does.

Letters: ``n`` pictures or texts, ``L`` encoder layers, ``T`` taps, ``N`` patches, ``D`` vision width; ``B`` questions
of a batch, ``N'`` visual tokens, ``D'`` their width, ``S`` positions of the question (itself, then its words), ``E``
sentence-encoder width, ``W`` readout width, ``C`` answers of the study.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from tqdm import tqdm, trange
from transformers import get_cosine_schedule_with_warmup

from igva.data.images import ImageSource
from igva.data.questions import Question
from igva.errors import UserError
from igva.model.fusion_base import Fusion, FusionOutput
from igva.model.fusion_mean import GroupedFusion
from igva.model.vision_layers import Tap, VisionLayers
from igva.study.guidance import ANOTHER_TASK, FIXED, UNIFORM
from igva.study.weights import swaps
from igva.study.weights_results import OTHER_TASK
from igva.train.cells import read_cells
from igva.train.feature_cache import LayerCache
from igva.train.guidance import total_variation
from igva.train.question_readout import Readout, SentenceFeatures, endless_batches


@dataclass(frozen=True)
class ReadoutSettings:
    """The budget, the same for everything compared in one study."""

    steps: int = 1000
    warm_up_steps: int = 0  # before them, on cells alone; needs cell words
    batch_size: int = 64
    learning_rate: float = 1e-3  # of the readout
    fusion_lr: float = 3e-4  # of the fusion's own parameters
    width: int = 192  # W
    blocks: int = 2
    heads: int = 4
    weight_decay: float = 0.01
    dropout: float = 0.0


# --- what a readout reads, computed once ------------------------------------------------------------------------------


class LayerFeatures:
    """Every hidden state 0..L of the pictures of a study, on disk; any fusion's taps are means over them."""

    def __init__(self, model: Any, processor: Any):
        self.num_layers = int(model.config.vision.num_hidden_layers)
        self._normalize = bool(model.config.normalize_layers)
        self._cache = LayerCache(model, processor, taps=[(layer,) for layer in range(self.num_layers + 1)])

    def fill(self, images: Iterable[ImageSource]) -> None:
        """Run the tower over the pictures that are not there yet; raises ``UserError`` for one that is unreadable."""
        self._cache.fill(images)

    def __call__(self, images: Sequence[ImageSource], taps: Sequence[Tap]) -> VisionLayers:
        """The layer means of pictures: ``(n, T, N, D)`` and ``(n, T, D)``, float32, normalised as in the model."""
        layers = sorted({layer for tap in taps for layer in tap})
        single = self._cache(images, layers)
        rows = [[layers.index(layer) for layer in tap] for tap in taps]
        patches = [single.patches[:, row].float().mean(dim=1) for row in rows]
        descriptors = [single.descriptors[:, row].float().mean(dim=1) for row in rows]
        means = VisionLayers(torch.stack(patches, dim=1), torch.stack(descriptors, dim=1))
        return means.normalized() if self._normalize else means


class AnswerSheet:
    """Every answer that can be given in a study, and which of them a question allows."""

    def __init__(self, train: Sequence[Question], test: Sequence[Question]):
        known = dict.fromkeys(question.answer for question in train)
        self.open = list(known)  # what a question without choices may be answered with: anything seen in training
        for question in (*train, *test):
            known.update(dict.fromkeys(question.choices))
        self.texts = list(known)
        self._numbers = {text: number for number, text in enumerate(self.texts)}
        self._sets: dict[tuple[str, ...], Tensor] = {(): torch.tensor([self._numbers[text] for text in self.open])}

    def number(self, answer: str) -> int:
        """Its number, -1 for an answer nobody could have given."""
        return self._numbers.get(answer, -1)

    def barred(self, questions: Sequence[Question]) -> Tensor:
        """``(B, C)``: 0 where an answer is allowed, -inf where it is not."""
        mask = torch.full((len(questions), len(self.texts)), -math.inf)
        for row, question in enumerate(questions):
            if question.choices not in self._sets:
                self._sets[question.choices] = torch.tensor([self._numbers[text] for text in question.choices])
            mask[row, self._sets[question.choices]] = 0
        return mask


@dataclass(frozen=True)
class Material:
    """What all runs of a study share.

    Attributes:
        layers, sentences: filled with every picture, question and answer.
        train, test: questions; one of ``train`` without choices has its answer among ``sheet.open``.
        cells: picture → the word of each patch, row by row; empty where it is not known.
    """

    layers: LayerFeatures
    sentences: SentenceFeatures
    train: Sequence[Question]
    test: Sequence[Question]
    sheet: AnswerSheet
    cells: Mapping[Any, Sequence[str]] = field(default_factory=dict)


def gather(
    model: Any, processor: Any, train: Sequence[Question], test: Sequence[Question], cells: Path | None = None
) -> Material:
    """Compute, or read from disk, everything the readouts read; progress on standard error.

    Raises:
        UserError: a picture is unreadable, or ``cells`` does not fit the pictures of ``train``.
    """
    layers, sentences = LayerFeatures(model, processor), SentenceFeatures(model, processor)
    sheet = AnswerSheet(train, test)
    words: dict[Any, list[str]] = {}
    if cells:
        known = read_cells(cells, cells.parent, model.config.fusion_dims().num_patches)
        words = {q.image: known[q.image] for q in train if q.image in known}
        if not words:
            raise UserError(f"{cells} names none of the training pictures: check --cells")
    layers.fill(question.image for question in (*train, *test))
    drawn = {word for row in words.values() for word in row}
    sentences.fill([q.question for q in (*train, *test)], [*sheet.texts, *sorted(drawn)])
    return Material(layers, sentences, train, test, sheet, words)


def of_tested_tasks(train: Sequence[Question], test: Sequence[Question]) -> list[Question]:
    """The questions of ``train`` whose task ``test`` has too; all of them where none has.

    A readout chooses an answer from a list: what only training has, such as the descriptions of the probe
    suite's pictures, would be answers that no test question has.
    """
    tasks = {question.task for question in test}
    return [question for question in train if question.task in tasks] or list(train)


# --- training and testing --------------------------------------------------------------------------------------------


@dataclass
class Trial:
    """One fusion and its readout, trained.

    Attributes:
        right: per test question, whether the answer was right, in the order of the questions.
        weights: mean layer weights per category, None where the fusion has none.
        seconds: of training; ``step_ms`` the median of one step.
    """

    right: list[bool]
    weights: dict[str, list[float]] | None
    loss: float
    seconds: float
    step_ms: float
    parameters: int


@dataclass(frozen=True)
class Exchange:
    """What other weights do to a trained fusion: see ``Outcome.moved`` and ``Outcome.exchanged``."""

    moved: dict[str, float]
    scores: dict[str, dict[str, float]]


class ReadoutTrial:
    """Trains one fusion with a fresh readout and answers the test questions."""

    def __init__(
        self, fusion: Fusion, material: Material, settings: ReadoutSettings, *, seed: int, blind: bool = False
    ):
        torch.manual_seed(seed)
        self.fusion, self.material, self.settings = fusion, material, settings
        self.seed, self.blind = seed, blind
        self.answers = material.sentences.vectors(material.sheet.texts)  # (C, E)
        self.readout = Readout(
            visual_dim=fusion.output_dim,
            num_tokens=fusion.num_tokens,
            text_dim=material.sentences.width,
            num_answers=len(material.sheet.texts),
            width=settings.width,
            blocks=settings.blocks,
            heads=settings.heads,
            dropout=settings.dropout,
        )

    def run(self, train: Sequence[Question], test: Sequence[Question], desc: str = "") -> Trial:
        """Train on questions and answer others; ``desc`` names the run in its progress bar."""
        start = time.perf_counter()
        loss, steps = self._train(train, desc)
        seconds = time.perf_counter() - start
        right, weights = self._test(test)
        return Trial(
            right=right,
            weights=weights,
            loss=round(loss, 4),
            seconds=round(seconds, 1),
            step_ms=round(1000 * sorted(steps)[len(steps) // 2], 1),
            parameters=sum(parameter.numel() for parameter in self.fusion.parameters()),
        )

    def _train(self, questions: Sequence[Question], desc: str) -> tuple[float, list[float]]:
        settings = self.settings
        groups: list[dict[str, Any]] = [{"params": list(self.readout.parameters()), "lr": settings.learning_rate}]
        if own := list(self.fusion.parameters()):
            groups.append({"params": own, "lr": settings.fusion_lr})
        optimizer = torch.optim.AdamW(groups, weight_decay=settings.weight_decay)
        schedule = get_cosine_schedule_with_warmup(optimizer, max(1, settings.steps // 20), settings.steps)
        self.fusion.train()
        self.readout.train()
        losses, times = [], []
        batches = endless_batches(list(questions), settings.batch_size, self.seed)
        with tqdm(total=settings.steps, desc=desc, unit="step", leave=False) as bar:
            for _ in range(settings.steps):
                begin = time.perf_counter()
                logits, targets, aux, _ = self._forward(next(batches))
                loss = nn.functional.cross_entropy(logits, targets)
                optimizer.zero_grad()
                (loss if aux is None else loss + aux).backward()
                nn.utils.clip_grad_norm_([p for group in groups for p in group["params"]], 1.0)
                optimizer.step()
                schedule.step()
                losses.append(loss.item())
                times.append(time.perf_counter() - begin)
                bar.update()
                bar.set_postfix(loss=f"{losses[-1]:.3f}")
        last = losses[-max(1, len(losses) // 10) :]
        return sum(last) / len(last), times

    def warm_up(self, stand_in: Fusion) -> float:
        """Train the readout to name the cells of the training pictures; returns the share named right at the end.

        Args:
            stand_in: a fusion that reads no question and hands on as many channels; only the readout is trained.
        """
        cells, settings = self.material.cells, self.settings
        counts = Counter(word for row in cells.values() for word in row)
        vocabulary = {word: number for number, word in enumerate(sorted(counts))}
        vectors = self.material.sentences.vectors(list(vocabulary))
        rarity = torch.tensor([counts[word] for word in vocabulary]).float().rsqrt()  # most cells are background
        optimizer = torch.optim.AdamW(
            self.readout.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        schedule = get_cosine_schedule_with_warmup(optimizer, settings.warm_up_steps // 20, settings.warm_up_steps)
        batches, hits = endless_batches(list(cells), settings.batch_size, self.seed), []
        for _ in trange(settings.warm_up_steps, desc="warm-up", unit="step", leave=False):
            batch = next(batches)
            wanted = torch.tensor([[vocabulary[word] for word in cells[image]] for image in batch])  # (B, N)
            with torch.no_grad():
                features = stand_in(self._layers(batch, stand_in.taps), None).features[:, : wanted.shape[1]]
            logits = self.readout.name_tokens(features, vectors).flatten(0, 1)
            loss = nn.functional.cross_entropy(logits, wanted.flatten(), weight=rarity)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            hits.append((logits.argmax(dim=-1) == wanted.flatten()).float().mean().item())
        last = hits[-max(1, len(hits) // 10) :]
        return sum(last) / len(last)

    @torch.inference_mode()
    def exchange(self, questions: Sequence[Question]) -> Exchange | None:
        """Answer with other weights, once trained: those of another task's question, uniform ones, its own mean.

        Returns:
            None where the fusion reads no question, gives no weights, or there is one task only.
        """
        tasks = {question.task for question in questions}
        if not self.fusion.needs_instruction or not self.fusion.layer_groups or len(tasks) < 2:
            return None
        self.fusion.eval()
        self.readout.eval()
        partners = zip(questions, swaps(questions, self.seed)[OTHER_TASK], strict=True)
        others = {question.id: pair[1] for question, pair in partners if pair is not None}
        batches = _in_order(questions, 2 * self.settings.batch_size)
        own = torch.cat([self._weights(batch) for batch in batches])
        asked = torch.cat([self._weights(batch, others) for batch in batches])
        distance = total_variation(_per_picture(own), _per_picture(asked))
        scores = {ANOTHER_TASK: self._scores(batches, asked=others)}
        if isinstance(self.fusion, GroupedFusion):
            fixed = own.mean(dim=0)  # (K,), or (N, K)
            scores[UNIFORM] = self._scores(batches, weights=torch.full_like(fixed, 1 / fixed.shape[-1]))
            scores[FIXED] = self._scores(batches, weights=fixed)
        ids = [question.id for question in questions]
        return Exchange(dict(zip(ids, distance.tolist(), strict=True)), scores)

    def _weights(self, batch: Sequence[Question], asked: Mapping[str, str] | None = None) -> Tensor:
        """``(B, K)``, or ``(B, N, K)``."""
        texts = [question.question if asked is None else asked[question.id] for question in batch]
        layers = self._layers([question.image for question in batch], self.fusion.taps)
        weights = self.fusion(layers, self.material.sentences.vectors(texts)).weights
        assert weights is not None  # there are layer groups
        return weights

    def _scores(
        self,
        batches: Sequence[Sequence[Question]],
        *,
        asked: Mapping[str, str] | None = None,
        weights: Tensor | None = None,
    ) -> dict[str, float]:
        scores: dict[str, float] = {}
        for batch in batches:
            logits, targets, _, _ = self._forward(batch, asked, weights)
            right = logits.argmax(dim=-1) == targets
            scores |= {question.id: float(one) for question, one in zip(batch, right.tolist(), strict=True)}
        return scores

    def _forward(
        self, batch: Sequence[Question], asked: Mapping[str, str] | None = None, weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Logits ``(B, C)`` with barred answers at -inf, targets ``(B,)``, auxiliary loss, layer weights.

        Args:
            asked: question id → what the fusion is asked in its place; the readout reads the question itself.
            weights: ``(K,)`` or ``(N, K)``, in place of what a ``GroupedFusion`` would give every picture.
        """
        material = self.material
        layers = self._layers([question.image for question in batch], self.fusion.taps)
        texts = [question.question for question in batch]
        guides = texts if asked is None else [asked[question.id] for question in batch]
        instruction = material.sentences.vectors(guides) if self.fusion.needs_instruction else None
        if weights is None:
            mixed = self.fusion(layers, instruction)
        else:
            rows = weights.expand(len(batch), *weights.shape)
            mixed = FusionOutput(features=cast(GroupedFusion, self.fusion).mix(layers, rows), weights=rows)
        words, padding = material.sentences.states(texts)
        logits = self.readout(mixed.features, words, padding, self.answers) + material.sheet.barred(batch)
        targets = torch.tensor([material.sheet.number(question.answer) for question in batch])
        return logits, targets, mixed.aux_loss, mixed.weights

    def _layers(self, images: Sequence[Any], taps: Sequence[Tap]) -> VisionLayers:
        layers = self.material.layers(images, taps)
        if self.blind:
            layers.patches.zero_()
            layers.descriptors.zero_()
        return layers

    @torch.inference_mode()
    def _test(self, questions: Sequence[Question]) -> tuple[list[bool], dict[str, list[float]] | None]:
        self.fusion.eval()
        self.readout.eval()
        right: list[bool] = []
        sums: dict[str, Tensor] = {}
        counts: dict[str, int] = {}
        for batch in _in_order(questions, 2 * self.settings.batch_size):
            logits, targets, _, weights = self._forward(batch)
            right += (logits.argmax(dim=-1) == targets).tolist()
            if weights is None:
                continue
            for question, row in zip(batch, _per_picture(weights), strict=True):
                sums[question.category] = sums.get(question.category, torch.zeros_like(row)) + row
                counts[question.category] = counts.get(question.category, 0) + 1
        if not sums:
            return right, None
        return right, {name: [round(v, 4) for v in (sums[name] / counts[name]).tolist()] for name in sorted(sums)}


def _in_order(questions: Sequence[Question], size: int) -> list[Sequence[Question]]:
    return [questions[start : start + size] for start in range(0, len(questions), size)]


def _per_picture(weights: Tensor) -> Tensor:
    """``(B, K)``; weights per patch are averaged."""
    return weights.mean(dim=1) if weights.dim() == 3 else weights
