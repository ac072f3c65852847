"""Validation loss: per supervised token, of everything and of each source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from igva.data.collate import Collator
from igva.data.dataset import ChatDataset, Sample
from igva.data.labels import IGNORE


class Validation:
    """Scores a model on held-out conversations.

    Args:
        dataset: what is held out.
        collator: unpacked; with a dummy picture where several devices train.
        batch_size: samples at a time on one device.
    """

    def __init__(self, dataset: ChatDataset, collator: Collator, batch_size: int):
        self.dataset = dataset
        self.collator = collator
        self.batch_size = batch_size
        self.by_source: dict[str, list[int]] = {}
        for index, record in enumerate(dataset.records):
            self.by_source.setdefault(record.source, []).append(index)

    @torch.no_grad()
    def score(self, model: Any, accelerator: Any) -> dict[str, float]:
        """``eval_loss``, ``eval_loss/SOURCE`` and ``eval_tokens``; the devices share the samples."""
        was_training = model.training
        model.eval()
        sums = {source: self._sum(model, accelerator, rows) for source, rows in sorted(self.by_source.items())}
        model.train(was_training)
        loss, tokens = (sum(pair[i] for pair in sums.values()) for i in (0, 1))
        metrics = {"eval_loss": round(loss / max(1, tokens), 5), "eval_tokens": int(tokens)}
        return metrics | {f"eval_loss/{name}": round(part / max(1, n), 5) for name, (part, n) in sums.items()}

    def _sum(self, model: Any, accelerator: Any, rows: list[int]) -> tuple[float, float]:
        """Summed loss and number of supervised tokens."""
        share = _Share(self.dataset, rows, accelerator.process_index, accelerator.num_processes)
        total = torch.zeros(2, device=accelerator.device, dtype=torch.float64)
        for batch in DataLoader(share, batch_size=self.batch_size, collate_fn=self.collator):
            for name in ("ids", "sources", "bad_images"):
                batch.pop(name, None)
            inputs = {k: v.to(accelerator.device) if torch.is_tensor(v) else v for k, v in batch.items()}
            with accelerator.autocast():
                # Divided by 1, so that it is the sum over the tokens.
                loss = model(**inputs, supervised_logits_only=True, num_items_in_batch=1).loss
            total += torch.stack([loss.double(), inputs["labels"][:, 1:].ne(IGNORE).sum().double()])
        loss_sum, tokens = accelerator.reduce(total, "sum").tolist()
        return loss_sum, tokens


class _Share(Dataset[Sample]):
    """One device's part of some samples. All parts are of one length, so that every device makes the same calls:
    the shorter ones end with a sample that counts for nothing."""

    def __init__(self, dataset: ChatDataset, rows: Sequence[int], rank: int, world: int):
        self.dataset = dataset
        self.rows = rows
        self.rank, self.world = rank, world

    def __len__(self) -> int:
        return -(-len(self.rows) // self.world)

    def __getitem__(self, index: int) -> Sample:
        row = index * self.world + self.rank
        if row < len(self.rows):
            return self.dataset[self.rows[row]]
        sample = self.dataset[self.rows[0]]
        return {**sample, "labels": [IGNORE] * len(sample["labels"])}
