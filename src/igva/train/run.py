"""One training run, from a recipe to an output folder."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
import time
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from torch.utils.data import Dataset
from transformers import TrainingArguments, set_seed

import igva
from igva.building import build
from igva.checkpoints.store import write_errors
from igva.checkpoints.trained import TRAINED_FILE, apply_trained, save_trained
from igva.data.collate import Collator
from igva.data.dataset import ChatDataset
from igva.data.records import Record, read_llava
from igva.data.templates import PLAIN
from igva.errors import UserError
from igva.model.modeling_igva import IgvaForConditionalGeneration
from igva.model.processing_igva import IgvaProcessor
from igva.train.arguments import Recipe
from igva.train.feature_cache import InstructionCache, LayerCache
from igva.train.stages import describe, lora_scale, set_trainable
from igva.train.trainer import IgvaTrainer
from igva.train.warmup import warm_up

RUN_FILE = "run.json"


def run(recipe: Recipe, resume: bool = False) -> Path:
    """Train as the recipe says.

    Args:
        resume: go on from the newest checkpoint of the output folder, if it has one.

    Returns:
        The output folder: the finished model, ``trained.safetensors`` (all that was trained), ``run.json`` (all
        that was decided), checkpoints.

    Raises:
        UserError: anything the user can mend; nothing is written before data and settings have been read.
    """
    start = time.time()
    records = read_llava(recipe.data.train, recipe.data.image_root)
    output = Path(recipe.output)
    if (output / TRAINED_FILE).exists() and not resume:
        raise UserError(f"{output} holds a finished run: name another output, or move it away")
    set_seed(recipe.optim.seed)
    model, processor = build_from_recipe(recipe)
    figures: dict[str, float] = {}
    layers = LayerCache(model, processor) if recipe.data.cache_features or recipe.warm_up.steps else None
    if recipe.warm_up.steps and not resume and layers is not None:
        set_trainable(model, dataclasses.replace(recipe, stage="align"))
        figures = warm_up(model, processor, recipe, layers)
    set_trainable(model, recipe)
    for line in describe(model):
        print(line)
    output.mkdir(parents=True, exist_ok=True)
    if recipe.optim.max_steps != 0:
        dataset = _dataset(recipe, records, model, processor, layers)
        figures |= _train(recipe, model, processor, dataset, resume)
    figures["seconds"] = round(time.time() - start, 1)
    with write_errors(output):
        save_trained(model, output / TRAINED_FILE, lora_scale(recipe.lora))
        (output / RUN_FILE).write_text(json.dumps(_decided(recipe, model, records, figures), indent=2) + "\n")
    del model  # the finished one is put together from its parts again
    export(recipe, output)
    return output


def build_from_recipe(recipe: Recipe) -> tuple[IgvaForConditionalGeneration, IgvaProcessor]:
    """The model a recipe starts from, and its processor."""
    settings = dataclasses.asdict(recipe.model)
    init_from = settings.pop("init_from")
    model, processor = build(**settings)
    if init_from:
        apply_trained(model, Path(init_from) / TRAINED_FILE, parts=("projector",))
    return model, processor


def export(recipe: Recipe, output: Path) -> None:
    """Write the finished model as one Hugging Face folder, LoRA folded in, next to what was trained."""
    model, processor = build_from_recipe(recipe)
    apply_trained(model, output / TRAINED_FILE)
    with write_errors(output):
        model.save_pretrained(output)
        processor.save_pretrained(output)


def _dataset(
    recipe: Recipe, records: list[Record], model: Any, processor: IgvaProcessor, layers: LayerCache | None
) -> Dataset[Any]:
    data = recipe.data
    instructions = None
    if data.cache_features and layers is not None:
        layers.fill(path for record in records for path in record.images)
        if processor.use_instructions:
            instructions = InstructionCache(model, processor)
            instructions.fill(turn for record in records for turn in processor.user_turns(record.chat))
    return ChatDataset(
        records,
        processor,
        chat_template=PLAIN if data.template == "plain" else None,
        max_length=data.max_length,
        layers=layers if data.cache_features else None,
        instructions=instructions,
        zero_images=data.zero_images,
    )


def _train(
    recipe: Recipe, model: Any, processor: IgvaProcessor, dataset: Dataset[Any], resume: bool
) -> dict[str, float]:
    optim = recipe.optim
    micro = optim.micro_batch_size or optim.batch_size
    if optim.batch_size % micro:
        raise UserError(f"optim.batch_size {optim.batch_size} is not a multiple of micro_batch_size {micro}")
    arguments = TrainingArguments(
        output_dir=recipe.output,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=optim.batch_size // micro,
        learning_rate=optim.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=optim.warmup_ratio,  # below 1 it is a share of all steps
        num_train_epochs=optim.epochs,
        max_steps=optim.max_steps,
        weight_decay=optim.weight_decay,
        max_grad_norm=optim.max_grad_norm,
        bf16=optim.bf16,
        logging_steps=optim.logging_steps,
        save_steps=optim.save_steps,
        save_total_limit=2,
        dataloader_num_workers=optim.workers,
        remove_unused_columns=False,
        report_to="none",
        seed=optim.seed,
        use_cpu=not torch.cuda.is_available(),
    )
    trainer = IgvaTrainer(
        model=model,
        args=arguments,
        train_dataset=dataset,
        data_collator=Collator(processor),
        recipe=recipe,
    )
    model.train()
    checkpoint = bool(resume and list(Path(recipe.output).glob("checkpoint-*")))
    result = trainer.train(resume_from_checkpoint=checkpoint or None)
    return {"train_loss": round(result.training_loss, 4), "steps": result.global_step}


def _decided(recipe: Recipe, model: Any, records: list[Record], figures: dict[str, float]) -> dict[str, Any]:
    """Everything a reader needs to repeat the run."""
    return {
        "recipe": dataclasses.asdict(recipe),
        "parameters": describe(model),
        "data": {
            "samples": len(records),
            "pictures": len({path for record in records for path in record.images}),
            "sha256": hashlib.sha256(Path(recipe.data.train).read_bytes()).hexdigest(),
        },
        "figures": figures,
        "versions": {
            "igva": igva.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "peft": peft.__version__,
            "python": platform.python_version(),
        },
        "hardware": {
            "device": str(model.device),
            "threads": torch.get_num_threads(),
            "machine": platform.machine(),
        },
    }
