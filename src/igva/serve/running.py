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


class Arrival(Generic[Who]):
    """Prompts on their way into a batch, some tokens at a time: nothing of the batch changes before they are through.

    Several answers to one prompt, whose entries share ``ids`` and ``image``, are read as one row.

    Attributes:
        entries: whose they are.
        cache, mask: of the tokens that have been run, and of all; a row for each entry once they are through.
        length: tokens of the longest prompt.
    """

    def __init__(self, model: IgvaForConditionalGeneration, entries: Sequence[Entry[Who]]):
        self.model, self.entries = model, list(entries)
        prompts = {(id(entry.ids), id(entry.image)): entry for entry in entries}
        numbers = {key: number for number, key in enumerate(prompts)}
        self._prompts = list(prompts.values())
        self._rows = [numbers[id(entry.ids), id(entry.image)] for entry in entries]  # of each entry
        self.length = max(len(entry.ids) for entry in entries)
        gaps = [self.length - len(each.ids) for each in self._prompts]
        rows = [([0] * gap + e.ids, [0] * gap + [1] * len(e.ids)) for gap, e in zip(gaps, self._prompts, strict=True)]
        self._ids = torch.tensor([ids for ids, _ in rows], device=model.device)
        self.mask = torch.tensor([mask for _, mask in rows], device=model.device)  # (B, S)
        self.cache = DynamicCache()
        self._run = 0
        is_picture = (self._ids == model.config.image_token_id) & self.mask.bool()
        self._placeholders = functional.pad(is_picture.int().cumsum(-1), (1, 0))  # (B, 1+S): before each token

    @property
    def left(self) -> int:
        """Tokens of the longest prompt that have not been run."""
        return self.length - self._run

    def advance(self, most: int) -> Tensor | None:
        """Run up to ``most`` tokens more of each prompt.

        Returns:
            After the last ones the logits of each answer's first token, ``(B, V)``; before, None.

        Raises:
            ValueError: a prompt's placeholders and its pictures' tokens differ in number.
        """
        start, end = self._run, min(self._run + most, self._ids.shape[1])
        output = self.model(
            input_ids=self._ids[:, start:end],
            attention_mask=self.mask[:, :end],
            position_ids=(self.mask.cumsum(-1) - 1).clamp_min(0)[:, start:end],
            past_key_values=self.cache,
            mm_encoder_outputs=self._pictures(start, end),
            use_cache=True,
            logits_to_keep=1,
        )
        self._run = end
        if end < self._ids.shape[1]:
            return None
        logits: Tensor = output.logits[:, -1]
        if len(self._prompts) == len(self.entries):
            return logits
        index = torch.tensor(self._rows, device=logits.device)
        self.mask = self.mask[index]
        self.cache.batch_select_indices(index)
        return logits[index]

    def _pictures(self, start: int, end: int) -> dict[str, IgvaImageFeatures] | None:
        """What stands at the placeholders among these tokens."""
        tokens: list[Tensor] = []
        added: dict[int, list[Tensor]] = {}
        for entry, (first, last, every) in zip(
            self._prompts, self._placeholders[:, [start, end, -1]].tolist(), strict=True
        ):
            image = entry.image
            own = torch.cat(list(image.pooler_output or ())) if image is not None else self._ids.new_empty(0, 0)
            if len(own) != every:
                raise ValueError(f"the prompt has {every} image placeholders, its pictures give {len(own)} tokens")
            if image is not None and last > first:
                tokens.append(own[first:last])
                for layer, features in (image.injections or {}).items():
                    added.setdefault(layer, []).append(features.flatten(0, 1)[first:last])
        if not tokens:
            return None
        injections = {layer: torch.cat(features)[None] for layer, features in added.items()}
        return {"image": IgvaImageFeatures(pooler_output=tokens, injections=injections or None)}


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

    def admit(self, arrival: Arrival[Who]) -> None:
        """Take in prompts that are through; their rows come after those that are there. All of it, or nothing."""
        if self.who:
            self._append(arrival.cache, arrival.mask)
        else:
            self._cache, self._mask = arrival.cache, arrival.mask
        self.who += [entry.who for entry in arrival.entries]

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
        joined = [
            (
                torch.cat([_lengthen(old.keys, length), _lengthen(new.keys, length)]),
                torch.cat([_lengthen(old.values, length), _lengthen(new.values, length)]),
            )
            for old, new in zip(self._cache.layers, cache.layers, strict=True)
        ]
        masks = torch.cat([functional.pad(part, (length - part.shape[1], 0)) for part in (self._mask, mask)])
        self._mask = masks  # from here on nothing can fail
        for layer, (keys, values) in zip(self._cache.layers, joined, strict=True):
            layer.keys, layer.values = keys, values


def _lengthen(states: Tensor, length: int) -> Tensor:
    """``(B, heads, S, width)`` with zeros on the left of S."""
    return functional.pad(states, (0, 0, length - states.shape[2], 0))
