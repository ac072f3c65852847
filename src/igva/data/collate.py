"""Samples → batches, padded on the right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from igva.data.dataset import Sample
from igva.data.labels import IGNORE
from igva.model.processing_igva import IgvaProcessor


class Collator:
    """Batches of samples: text padded on the right, the rows of all pictures one after another."""

    PER_IMAGE = ("pixel_values", "layer_patches", "layer_descriptors", "instruction_embeds")

    def __init__(self, processor: IgvaProcessor):
        self.processor = processor

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        length = max(len(sample["input_ids"]) for sample in samples)
        pad = self.processor.tokenizer.pad_token_id
        batch: dict[str, Any] = {
            "input_ids": _padded([s["input_ids"] for s in samples], pad, length),
            "labels": _padded([s["labels"] for s in samples], IGNORE, length),
            "attention_mask": _padded([[1] * len(s["input_ids"]) for s in samples], 0, length),
        }
        batch["ids"] = [s["id"] for s in samples]  # for messages
        batch["sources"] = [s["source"] for s in samples for _ in range(s["images"])]  # one per picture
        for name in self.PER_IMAGE:
            if rows := [s[name] for s in samples if name in s]:
                batch[name] = torch.cat(rows)
        turns = [row for s in samples for row in s.get("instruction_turns", [])]
        if turns:
            tokens = self.processor.encode_instructions(turns)
            batch.update({name: torch.tensor(value) for name, value in tokens.items()})
        return batch


def _padded(rows: list[list[int]], value: int, length: int) -> Tensor:
    return torch.tensor([row + [value] * (length - len(row)) for row in rows])
