"""What a readout reads, computed once: single layers of the vision tower, token states of the sentences.

Letters: ``n`` pictures or sentences, ``L`` encoder layers, ``T`` taps, ``N`` patches, ``D`` vision width, ``S`` tokens,
``E`` sentence-encoder width.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from igva.data.images import ImageSource
from igva.errors import UserError
from igva.model.instruction_encoder import pool_tokens
from igva.model.vision_layers import Tap, VisionLayers
from igva.train.feature_cache import LayerCache

MAX_TOKENS = 48  # of a sentence; what is longer is cut


class LayerFeatures:
    """Every hidden state 0..L of the pictures of a study, on disk; any fusion's taps are means over them."""

    def __init__(self, model: Any, processor: Any):
        self.num_layers = int(model.config.vision.num_hidden_layers)
        self._cache = LayerCache(model, processor, taps=[(layer,) for layer in range(self.num_layers + 1)])

    def fill(self, images: Iterable[ImageSource]) -> None:
        """Run the tower over the pictures that are not there yet; raises ``UserError`` for one that is unreadable."""
        self._cache.fill(images)

    def __call__(self, images: Sequence[ImageSource], taps: Sequence[Tap]) -> VisionLayers:
        """The layer means of pictures: ``(n, T, N, D)`` and ``(n, T, D)``, float32."""
        layers = sorted({layer for tap in taps for layer in tap})
        single = self._cache(images, layers)
        rows = [[layers.index(layer) for layer in tap] for tap in taps]
        patches = [single.patches[:, row].float().mean(dim=1) for row in rows]
        descriptors = [single.descriptors[:, row].float().mean(dim=1) for row in rows]
        return VisionLayers(torch.stack(patches, dim=1), torch.stack(descriptors, dim=1))


class SentenceFeatures:
    """Token states and the vector of every sentence, by the model's own instruction encoder."""

    def __init__(self, model: Any, processor: Any):
        if model.model.instruction_encoder is None:
            raise UserError("the model has no sentence encoder to read questions with: name one with --instruction")
        self._model = model
        self._tokenizer = processor.instruction_tokenizer
        self._states: dict[str, Tensor] = {}  # (S, E), half precision
        self._vectors: dict[str, Tensor] = {}  # (E,)

    @property
    def width(self) -> int:
        """``E``."""
        return int(self._model.config.instruction_dim)

    @torch.inference_mode()
    def fill(self, sentences: Iterable[str], batch_size: int = 64) -> None:
        """Encode what is not there yet."""
        todo = sorted({sentence for sentence in sentences if sentence not in self._states}, key=len)
        config, device = self._model.config, self._model.device
        for start in tqdm(range(0, len(todo), batch_size), desc="sentences", disable=not todo):
            batch = todo[start : start + batch_size]
            tokens = self._tokenizer(
                batch, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
            ).to(device)
            mask = tokens["attention_mask"]
            states = self._model.model.instruction_encoder(
                input_ids=tokens["input_ids"], attention_mask=mask
            ).last_hidden_state
            vectors = pool_tokens(states, mask, config.instruction_pooling)
            if config.instruction_normalize:
                vectors = nn.functional.normalize(vectors, dim=-1)
            for sentence, row, real, vector in zip(batch, states, mask.bool(), vectors, strict=True):
                self._states[sentence] = row[real].to("cpu", torch.float16).clone()
                self._vectors[sentence] = vector.float().cpu().clone()

    def states(self, sentences: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token states ``(n, S, E)`` float32, and which of them are padding ``(n, S)``."""
        rows = [self._states[sentence] for sentence in sentences]
        padded = nn.utils.rnn.pad_sequence(rows, batch_first=True).float()
        lengths = torch.tensor([len(row) for row in rows])
        return padded, torch.arange(padded.shape[1])[None] >= lengths[:, None]

    def vectors(self, sentences: Sequence[str]) -> Tensor:
        """``(n, E)``, as the fusion gets them."""
        return torch.stack([self._vectors[sentence] for sentence in sentences])
