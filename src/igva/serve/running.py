"""The answers that are being generated, as one batch that others join and leave between two tokens.

transformers' own continuous batching takes token ids alone, and igva's visual tokens depend on the question; vLLM
serves them at scale. This is the small engine for one machine: one key-value cache, padded on the left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.nn import functional
from transformers import DynamicCache

from igva.model.modeling_igva import IgvaForConditionalGeneration, IgvaImageFeatures

Who = TypeVar("Who")


@dataclass
class Entry(Generic[Who]):
    """An answer about to join: whose it is, its prompt's tokens, and its pictures' features (None without)."""

    who: Who
    ids: list[int]
    image: IgvaImageFeatures | None


class RunningBatch(Generic[Who]):
    """``B`` answers of up to ``S`` tokens.

    Attributes:
        who: whose each row is.
    """

    def __init__(self, model: IgvaForConditionalGeneration):
        self.model = model
        self.who: list[Who] = []
        self._cache: Any = None
        self._mask = torch.empty(0, 0, dtype=torch.long, device=model.device)  # (B, S)

    def join(self, entries: Sequence[Entry[Who]]) -> Tensor:
        """Run the prompts; their rows come after those that are there.

        Returns:
            The logits of each one's first token, ``(new rows, V)``.
        """
        length = max(len(entry.ids) for entry in entries)
        ids = torch.tensor([[0] * (length - len(entry.ids)) + entry.ids for entry in entries])
        mask = torch.tensor([[0] * (length - len(e.ids)) + [1] * len(e.ids) for e in entries])
        ids, mask = ids.to(self.model.device), mask.to(self.model.device)
        cache = DynamicCache()
        output = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(-1) - 1).clamp_min(0),
            past_key_values=cache,
            mm_encoder_outputs=_together([entry.image for entry in entries if entry.image is not None]),
            use_cache=True,
            logits_to_keep=1,
        )
        if self.who:
            self._append(cache, mask)
        else:
            self._cache, self._mask = cache, mask
        self.who += [entry.who for entry in entries]
        logits: Tensor = output.logits[:, -1]
        return logits

    def step(self, tokens: Sequence[int]) -> Tensor:
        """Each row's last token → the logits of its next one, ``(B, V)``."""
        device = self.model.device
        position = self._mask.sum(-1, keepdim=True)
        self._mask = functional.pad(self._mask, (0, 1), value=1)
        output = self.model(
            input_ids=torch.tensor(tokens, device=device)[:, None],
            attention_mask=self._mask,
            position_ids=position,
            past_key_values=self._cache,
            use_cache=True,
        )
        logits: Tensor = output.logits[:, -1]
        return logits

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all other rows, and the columns that nobody needs any more."""
        self.who = [self.who[row] for row in rows]
        if not rows:
            self._cache = None
            return
        index = torch.tensor(rows, device=self._mask.device)
        self._mask = self._mask[index]
        start = int(self._mask.any(dim=0).int().argmax())
        self._mask = self._mask[:, start:].contiguous()
        for layer in self._cache.layers:
            layer.keys = layer.keys[index, :, start:].contiguous()
            layer.values = layer.values[index, :, start:].contiguous()

    def _append(self, cache: Any, mask: Tensor) -> None:
        length = max(self._mask.shape[1], mask.shape[1])
        for old, new in zip(self._cache.layers, cache.layers, strict=True):
            old.keys = torch.cat([_lengthen(old.keys, length), _lengthen(new.keys, length)])
            old.values = torch.cat([_lengthen(old.values, length), _lengthen(new.values, length)])
        masks = [functional.pad(part, (length - part.shape[1], 0)) for part in (self._mask, mask)]
        self._mask = torch.cat(masks)


def _lengthen(states: Tensor, length: int) -> Tensor:
    """``(B, heads, S, width)`` with zeros on the left of S."""
    return functional.pad(states, (0, 0, length - states.shape[2], 0))


def _together(images: Sequence[IgvaImageFeatures]) -> dict[str, IgvaImageFeatures] | None:
    """The pictures of several answers, in the order of their placeholders."""
    if not images:
        return None
    tokens = [token for image in images for token in list(image.pooler_output or ())]
    layers = list(images[0].injections or {})
    added = {layer: torch.cat([image.injections[layer] for image in images if image.injections]) for layer in layers}
    return {"image": IgvaImageFeatures(pooler_output=tokens, injections=added or None)}
