"""What a readout reads, computed once: single layers of the vision tower, vectors of questions, words and answers.

Letters: ``n`` pictures or texts, ``L`` encoder layers, ``T`` taps, ``N`` patches, ``D`` vision width, ``S`` places of a
question (itself, then its words), ``E`` sentence-encoder width.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from igva.data.images import ImageSource
from igva.errors import UserError
from igva.model.vision_layers import Tap, VisionLayers
from igva.train.feature_cache import InstructionCache, LayerCache

MAX_WORDS = 48  # of a question; what is longer is cut


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


class SentenceFeatures:
    """The vector of every question, of each of its words, and of every answer, by the model's instruction encoder."""

    def __init__(self, model: Any, processor: Any):
        if model.model.instruction_encoder is None:
            raise UserError("the model has no sentence encoder to read questions with: name one with --instruction")
        self._cache = InstructionCache(model, processor)

    @property
    def width(self) -> int:
        """``E``."""
        return self._cache.width

    def fill(self, questions: Iterable[str], texts: Iterable[str]) -> None:
        """Encode questions with their words, and other texts, where that is not done yet."""
        questions = list(questions)
        self._cache.fill([*questions, *(word for question in questions for word in words(question)), *texts])

    def vectors(self, texts: Sequence[str]) -> Tensor:
        """``(n, E)``, as a fusion gets them."""
        return torch.stack([self._cache([text]) for text in texts])

    def states(self, questions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """The question as a whole and then word by word: ``(n, S, E)``, and which places are padding, ``(n, S)``."""
        rows = [self.vectors([question, *words(question)]) for question in questions]
        lengths = torch.tensor([len(row) for row in rows])
        padded = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        return padded, torch.arange(padded.shape[1])[None] >= lengths[:, None]


def words(question: str) -> list[str]:
    """The words of a question in lower case, at most ``MAX_WORDS``."""
    return re.findall(r"[\w'-]+", question.lower())[:MAX_WORDS]
