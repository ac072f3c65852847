"""A thin ``Trainer``: learning rates by part, layer weights logged, and only what is trained saved."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer
from transformers.trainer_pt_utils import LengthGroupedSampler

from igva.checkpoints.trained import TRAINED_FILE, restore_trained, save_trained
from igva.errors import UserError
from igva.train.arguments import Recipe
from igva.train.stages import lora_scale, parameter_groups


class IgvaTrainer(Trainer):
    """Trains what ``set_trainable`` opened.

    Logs, besides the loss, the fusion's auxiliary loss and the mean weight of each layer group per data source.

    Raises:
        UserError: at the first non-finite loss, with the ids of the batch's samples.
    """

    def __init__(self, *args: Any, recipe: Recipe, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.recipe = recipe
        self._aux = _Mean()
        self._weights: dict[str, _Mean] = defaultdict(_Mean)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        if getattr(self, "optimizer", None) is None:
            optim = self.recipe.optim
            self.optimizer: Any = torch.optim.AdamW(
                parameter_groups(self.model, optim), lr=optim.learning_rate, weight_decay=optim.weight_decay
            )
        return self.optimizer

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
        """Batches of like length: little padding, and text-only samples among themselves."""
        return LengthGroupedSampler(
            self.args.train_batch_size * self.args.gradient_accumulation_steps,
            lengths=self.train_dataset.lengths(),  # type: ignore[union-attr, unused-ignore]
            generator=torch.Generator().manual_seed(self.args.data_seed or self.args.seed),
        )

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        sources, ids = inputs.pop("sources", []), inputs.pop("ids", [])
        outputs = model(**inputs, supervised_logits_only=True, num_items_in_batch=num_items_in_batch)
        if not torch.isfinite(outputs.loss):
            raise UserError(
                f"the loss is {outputs.loss.item()} at step {self.state.global_step} on the samples "
                f"{', '.join(ids)}: lower the learning rate, or look at these samples"
            )
        self._note(outputs, sources)
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def _note(self, outputs: Any, sources: list[str]) -> None:
        if outputs.aux_loss is not None:
            self._aux.add(outputs.aux_loss.detach().float())
        if outputs.fusion_weights is not None and outputs.fusion_weights.dim() == 2:
            for source, row in zip(sources, outputs.fusion_weights.detach().float(), strict=True):
                self._weights[source].add(row)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if "loss" in logs:
            if self._aux.count:
                logs["aux_loss"] = round(float(self._aux.take()), 5)
            for source in sorted(self._weights):
                for group, value in enumerate(self._weights[source].take().tolist(), start=1):
                    logs[f"weights/{source}/{group}"] = round(value, 4)
            self._weights.clear()
        super().log(logs, *args, **kwargs)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        save_trained(self.model, folder / TRAINED_FILE, lora_scale(self.recipe.lora))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        restore_trained(model or self.model, Path(resume_from_checkpoint) / TRAINED_FILE)


class _Mean:
    """A running mean of tensors."""

    def __init__(self) -> None:
        self.total: Tensor | None = None
        self.count = 0

    def add(self, value: Tensor) -> None:
        self.total = value.clone() if self.total is None else self.total + value
        self.count += 1

    def take(self) -> Tensor:
        assert self.total is not None
        mean = self.total / self.count
        self.total, self.count = None, 0
        return mean
