"""One training run, from a recipe to an output folder."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import TrainingArguments, set_seed

from igva.checkpoints.tiny import trained_path
from igva.checkpoints.trained import TRAINED_FILE, restore_lora, save_trained
from igva.data.collate import Collator, dummy_picture
from igva.files import write_errors
from igva.model.processing_igva import IgvaProcessor
from igva.train.allocator_warmup import warm_up_allocator
from igva.train.arguments import Recipe
from igva.train.cells import CellTask
from igva.train.distributed import check_distributed, deepspeed_config, leave_deepspeed, shard, shares, world_size
from igva.train.inputs import dataset, fill, imagination_for, layer_cache, read_data
from igva.train.packed_attention import use_packed_attention
from igva.train.place_words import add_place_words
from igva.train.precision import settle_precision
from igva.train.report import Report, data_facts, run_versions
from igva.train.resuming import beginning
from igva.train.stages import describe, lora_scale, set_trainable
from igva.train.starting import check_start
from igva.train.starting_model import build_from_recipe, export
from igva.train.stopping import StopOnSignal
from igva.train.tracking import check_trackers
from igva.train.trainer import IgvaTrainer
from igva.train.validation import Validation
from igva.train.warmup import check_no_question, warm_up


def run(recipe: Recipe, resume: bool = False, *, name: str = "", overrides: Sequence[str] = ()) -> Path:
    """Train as the recipe says; under ``torchrun`` on several devices.

    Args:
        resume: go on from the newest sound checkpoint of the output folder.
        name, overrides: where the recipe came from, for ``run.json``.

    Returns:
        The output folder: the finished model, ``trained.safetensors`` (all that was trained), ``run.json`` (all
        that was decided), checkpoints.

    Raises:
        UserError: anything the user can mend; nothing is loaded or written before data and settings have been read.
    """
    start = time.time()
    check_distributed(recipe)
    check_trackers(recipe)
    shares(recipe)
    state = PartialState(cpu=not torch.cuda.is_available())
    recipe, precision = settle_precision(recipe, state.device)
    check_start(recipe)
    data = read_data(recipe)
    facts = data_facts(recipe, data.train)
    begun = beginning(recipe, resume, facts, run_versions(), main=state.is_main_process)
    state.wait_for_everyone()  # before one of them writes into the folder that another looks into
    output = Path(recipe.output)
    set_seed(recipe.optim.seed)
    model, processor = build_from_recipe(recipe)
    imagination = imagination_for(data, model)
    layers = layer_cache(recipe, model, processor, state)
    figures = begun.figures
    if recipe.warm_up.place_words:
        add_place_words(model, processor, recipe.warm_up.place_words)
    cells = None
    warms_up = bool(recipe.warm_up.steps) and begun.checkpoint is None
    if warms_up:
        check_no_question(model)
    if (warms_up or recipe.warm_up.beside) and layers is not None:
        with state.main_process_first():  # the others find everything there
            layers.refresh()
            cells = CellTask(model, processor, recipe, layers)
    if warms_up and cells is not None:
        set_trainable(model, dataclasses.replace(recipe, stage="align", trained=["projector"]))
        figures = warm_up(model, recipe, cells)
    set_trainable(model, recipe)
    if recipe.allocator.steps and begun.checkpoint is None and layers is not None:
        records: Any = data.train  # no stream: its features are never cached
        with state.main_process_first():
            layers.refresh()
            fill(layers, records, recipe)
        figures |= warm_up_allocator(model, processor, recipe, layers, records)
    if recipe.model.init_from and not recipe.model.is_whole and recipe.adapts():
        restore_lora(model, trained_path(recipe.model.init_from), lora_scale(recipe.lora))
    report = Report(recipe, model, facts, precision=precision, begun=begun, name=name, overrides=overrides)
    train, validation = (dataset(recipe, records, model, processor, layers, imagination, state) for records in data)
    if state.is_main_process:
        for line in [*report.decided(), *describe(model)]:
            print(line)
        with write_errors(output):
            output.mkdir(parents=True, exist_ok=True)
            report.write(output, figures)
    if recipe.optim.max_steps != 0:
        figures |= _train(recipe, model, processor, train, validation, cells, begun.checkpoint)
    figures["seconds"] = round(time.time() - start, 1)
    with write_errors(output):
        save_trained(model, output / TRAINED_FILE, lora_scale(recipe.lora), write=state.is_main_process)
        if state.is_main_process:
            report.write(output, figures)
    del model  # the finished one is put together from its parts again
    if recipe.export and state.is_main_process:
        export(recipe, output / TRAINED_FILE, output)
    state.wait_for_everyone()
    return output


def _learns_text(model: Any) -> bool:
    """Whether any weight of the language model, or of its LoRA, is trained."""
    return any(
        parameter.requires_grad
        for name, parameter in model.named_parameters()
        if "language_model." in name or "lm_head" in name
    )


def _train(
    recipe: Recipe,
    model: Any,
    processor: IgvaProcessor,
    samples: Any,
    validation: Any,
    cells: CellTask | None,
    checkpoint: Path | None,
) -> dict[str, Any]:
    micro, accumulate = shares(recipe)
    # Devices that train together must all run every module, also those whose batch has no picture; and where the
    # language model is frozen, such a batch would have nothing to learn from.
    needed = world_size() > 1 or not _learns_text(model)
    dummy = dummy_picture(model, cached=recipe.data.cache_features) if needed else None
    if recipe.data.pack_tokens:
        use_packed_attention(model.model.language_model)
    if recipe.distributed == "fsdp":
        shard(model, recipe)
    trainer = IgvaTrainer(
        model=model,
        args=_arguments(recipe, micro, accumulate, validation is not None),
        train_dataset=samples,
        eval_dataset=validation,
        data_collator=Collator(processor, recipe.data.pack_tokens, dummy),
        recipe=recipe,
        cells=cells if recipe.warm_up.beside else None,
        validation=Validation(validation, Collator(processor, dummy=dummy), micro) if validation else None,
    )
    model.train()
    with StopOnSignal() as stop:
        trainer.add_callback(stop)
        result = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    trainer.count_bad_images()
    figures: dict[str, Any] = {"train_loss": round(result.training_loss, 4), "steps": result.global_step}
    figures["processes"] = world_size()
    figures["bad_images"] = len(trainer.bad_images)
    if trainer.bad_images:
        figures["bad_image_names"] = sorted(trainer.bad_images)[:100]
        print(f"{len(trainer.bad_images)} pictures could not be used ({recipe.data.on_bad_image}): see run.json")
    figures |= trainer.evaluate()
    leave_deepspeed()
    return figures


def _arguments(recipe: Recipe, micro: int, accumulate: int, validate: bool) -> TrainingArguments:
    optim = recipe.optim
    return TrainingArguments(
        output_dir=recipe.output,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=accumulate,
        learning_rate=optim.learning_rate,
        lr_scheduler_type=optim.schedule,
        warmup_steps=optim.warmup_ratio,  # below 1 it is a share of all steps
        num_train_epochs=optim.epochs,
        max_steps=optim.max_steps,
        weight_decay=optim.weight_decay,
        max_grad_norm=optim.max_grad_norm,
        bf16=optim.bf16,
        gradient_checkpointing=optim.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        logging_steps=optim.logging_steps,
        eval_strategy="steps" if validate and optim.eval_steps else "no",
        eval_steps=optim.eval_steps,
        save_steps=optim.save_steps,
        dataloader_num_workers=optim.workers,
        remove_unused_columns=False,
        report_to=recipe.log_to or "none",
        seed=optim.seed,
        use_cpu=not torch.cuda.is_available(),
        ddp_find_unused_parameters=False,  # every device runs every module: see Collator
        deepspeed=deepspeed_config(recipe),
        accelerator_config={"dispatch_batches": False},  # pictures and names cannot be broadcast as one tensor
    )
