"""A thin ``Trainer``: rates by part, global denominators, layer weights logged, checkpoints whole or absent."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor
from transformers import Trainer, TrainerCallback
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME

from igva.checkpoints.trained import TRAINED_FILE, restore_trained, save_trained
from igva.errors import UserError
from igva.files import write_errors
from igva.train.arguments import Recipe
from igva.train.cells import CellTask
from igva.train.distributed import accept_missing_frozen, restore_optimizer_state, whole_optimizer_state
from igva.train.figures import Figures
from igva.train.guidance import GuidanceProbe
from igva.train.sampler import StepSampler
from igva.train.snapshots import publish, staging_folder
from igva.train.stages import lora_scale, parameter_groups
from igva.train.validation import Validation


class _Epochs(TrainerCallback):
    """Tells the sampler its epoch. On several devices, what a resumed run reads hides the sampler from the trainer."""

    def __init__(self, sampler: StepSampler):
        self.sampler = sampler

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.sampler.set_epoch(int((state.epoch or 0) + 1e-6))


class IgvaTrainer(Trainer):
    """Trains what ``set_trainable`` opened.

    The loss of a step is the mean over all its supervised tokens and the fusion's auxiliary loss the mean over all
    its pictures, however the step is cut into micro-batches and devices.

    Args:
        recipe: the run.
        validation: what ``evaluate`` scores, or None.
        cells: what ``warm_up.beside`` adds to each step's loss, or None.

    Raises:
        UserError: at the first non-finite loss, with the ids of the batch's samples; too many bad pictures.
    """

    def __init__(
        self,
        *args: Any,
        recipe: Recipe,
        validation: Validation | None = None,
        cells: CellTask | None = None,
        **kwargs: Any,
    ):
        self.recipe = recipe
        super().__init__(*args, **kwargs)
        self.validation = validation
        self._cells = cells
        self.bad_images: set[str] = set()
        self.images_seen = 0
        self._images_in_step: Tensor | None = None
        self._figures = Figures()
        self._guidance = GuidanceProbe(self.model.model.fusion)
        self._logged_step: int | None = None  # None until the first step, which a resumed run does not count from 0
        self._staging: str | None = None

    @property
    def _sharded(self) -> bool:
        return self.recipe.distributed == "fsdp"

    # --- set-up ---------------------------------------------------------------------------------------------------

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()
        if self._sharded:  # the model shards itself; DDP around it would fail
            self.accelerator.prepare_model = functools.partial(self.accelerator.prepare_model, evaluation_mode=True)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        if getattr(self, "optimizer", None) is None:
            optim = self.recipe.optim
            self.optimizer: Any = torch.optim.AdamW(
                parameter_groups(self.model, optim), lr=optim.learning_rate, weight_decay=optim.weight_decay
            )
        return self.optimizer

    def create_scheduler(self, *args: Any, **kwargs: Any) -> Any:
        if self.is_deepspeed_enabled:  # called when the engine is there and no checkpoint is loaded yet
            accept_missing_frozen(self.accelerator.deepspeed_engine_wrapped.engine)
        return super().create_scheduler(*args, **kwargs)

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
        optim, dataset = self.recipe.optim, self.train_dataset
        if not hasattr(dataset, "lengths"):  # a stream keeps its own order
            return None
        sampler = StepSampler(
            dataset.lengths(),
            dataset.modalities(),
            optim.batch_size,
            seed=optim.seed,
            group_by=self.recipe.data.group_by,
        )
        self.add_callback(_Epochs(sampler))
        return sampler

    # --- a step ---------------------------------------------------------------------------------------------------

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Any:
        """Supervised tokens of the whole step; notes its pictures beside."""
        tokens = sum(int(batch["labels"][:, 1:].ne(-100).sum()) for batch in batch_samples)
        images = sum(len(batch["sources"]) for batch in batch_samples)
        counts = torch.tensor([[tokens, images]], device=device)
        if self.args.world_size > 1:
            counts = self.accelerator.gather(counts)
        total = counts.sum(dim=0).clamp_min(1)
        self._images_in_step = total[1]
        return total[0]

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        if self._logged_step is None:
            self._logged_step = self.state.global_step
        ids, sources = inputs.pop("ids"), inputs.pop("sources")
        self.images_seen += len(sources)
        self.bad_images |= set(inputs.pop("bad_images", ()))
        self._guidance.wanted = (self.state.global_step + 1) % self.args.logging_steps == 0
        outputs = model(
            **inputs,
            supervised_logits_only=True,
            num_items_in_batch=num_items_in_batch,
            num_images_in_batch=self._images_in_step,
        )
        if self._guidance.wanted:  # of this step's questions: the loss of cells asks the fusion again
            with self.accelerator.autocast():
                guided = self._guidance.measure(sources)
            if guided is not None:
                self._figures.add_mean("guidance", guided, len(sources))
        # Gradients are averaged over the devices, while this device's loss is its share of a sum.
        loss = outputs.loss * self.args.world_size
        if self._cells is not None and sources:  # text alone brings no question for a picture
            loss = loss + self._beside(self._cells, inputs.get("instruction_embeds"), ids)
        self._check_finite(loss, ids)
        aux = outputs.aux_loss.item() if outputs.aux_loss is not None else 0.0
        if outputs.aux_loss is not None:
            self._figures.add("aux_loss", aux)
        self._figures.add("lm_loss", outputs.loss.item() - aux)
        if outputs.fusion_weights is not None and outputs.fusion_weights.dim() == 2:
            self._figures.add_weights(sources, outputs.fusion_weights)
        return (loss, outputs) if return_outputs else loss

    def _beside(self, cells: CellTask, instructions: Tensor | None, ids: list[str]) -> Tensor:
        """The loss of cells, this micro-batch's part of this device's; drawn by its samples, so that a resumed run
        draws the same."""
        settings, parts = self.recipe.warm_up, self.current_gradient_accumulation_steps
        seed = f"{self.recipe.optim.seed} {self.state.global_step} {ids[0]}"
        result = cells.beside(instructions, max(1, settings.batch_size // parts), seed)
        self._figures.add("cells_loss", result.loss.item() / parts / self.args.world_size)
        for name, share in zip(("cells_right", "imagined_right"), result.shares(), strict=True):
            if share == share:
                self._figures.add_mean(name, share, 1)
        return settings.beside * result.loss / parts

    def _check_finite(self, loss: Tensor, ids: list[str]) -> None:
        """Stops every device at the first loss that is not a number, with the ids of the samples behind it."""
        fine = torch.isfinite(loss.detach()).float()
        if self.args.world_size > 1:
            fine = self.accelerator.reduce(fine, "sum") / self.args.world_size
        if fine < 1:
            named = gather_object([] if torch.isfinite(loss) else list(ids))
            raise UserError(
                f"the loss is {loss.item()} at step {self.state.global_step} on the samples {', '.join(named)}: "
                "lower the learning rate, or look at these samples"
            )

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if "loss" in logs:
            steps = max(1, self.state.global_step - (self._logged_step or 0))
            self._logged_step = self.state.global_step
            logs |= self._figures.take(steps)
            self.count_bad_images()
            if self.bad_images:
                logs["bad_images"] = len(self.bad_images)
        super().log(logs, *args, **kwargs)

    def count_bad_images(self) -> None:
        """Bring the devices' lists of bad pictures together.

        Raises:
            UserError: their share of the pictures seen is above ``data.max_bad_share``.
        """
        counts = gather_object([(self.bad_images, self.images_seen)])
        self.bad_images = set().union(*(names for names, _ in counts))
        seen, share = max(100, sum(count for _, count in counts)), self.recipe.data.max_bad_share
        if len(self.bad_images) > share * seen:
            raise UserError(
                f"{len(self.bad_images)} bad pictures among {seen} are more than data.max_bad_share {share:g}; "
                f"one is {min(self.bad_images)}: look with `igva data verify`, or raise the share"
            )

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Validation loss per supervised token, of all and per source (``eval_loss/SOURCE``)."""
        if self.validation is None:
            return {}
        metrics = self.validation.score(self.model_wrapped if self._sharded else self.model, self.accelerator)
        self.log(dict(metrics))
        self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    # --- checkpoints ----------------------------------------------------------------------------------------------

    def _get_output_dir(self, *args: Any, **kwargs: Any) -> str:
        return self._staging or super()._get_output_dir(*args, **kwargs)

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        output, main = Path(self.args.output_dir), self.args.should_save
        with write_errors(output):
            self._staging = str(staging_folder(output, main))
            self.accelerator.wait_for_everyone()
            try:
                super()._save_checkpoint(*args, **kwargs)
            finally:
                self._staging = None
            self.accelerator.wait_for_everyone()
            if main:
                publish(output, self.recipe.optim.keep_checkpoints)
            self.accelerator.wait_for_everyone()

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """What is trained, and nothing else; all devices take part."""
        folder, write = Path(output_dir or self.args.output_dir), bool(self.args.should_save)
        folder.mkdir(parents=True, exist_ok=True)
        save_trained(self.model, folder / TRAINED_FILE, lora_scale(self.recipe.lora), write=write)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        folder = Path(output_dir)
        if self.is_deepspeed_enabled:
            self.model_wrapped.save_checkpoint(output_dir, exclude_frozen_parameters=True)
        elif self._sharded:
            state = whole_optimizer_state(self.model, self.optimizer.optimizer)
            if self.args.should_save:
                torch.save(state, folder / OPTIMIZER_NAME)
        else:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        if self.args.should_save:
            torch.save(self.lr_scheduler.state_dict(), folder / SCHEDULER_NAME)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        restore_trained(model or self.model, Path(resume_from_checkpoint) / TRAINED_FILE)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if not self._sharded or checkpoint is None:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        state = torch.load(Path(checkpoint) / OPTIMIZER_NAME, weights_only=True)
        restore_optimizer_state(self.model, self.optimizer.optimizer, state)
        self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint) / SCHEDULER_NAME, weights_only=True))
