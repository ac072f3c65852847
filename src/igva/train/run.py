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

from igva.answering import load
from igva.building import build
from igva.checkpoints.retrofit import retrofit_llava
from igva.checkpoints.tiny import trained_path
from igva.checkpoints.trained import TRAINED_FILE, apply_trained, restore_lora, save_trained
from igva.data.collate import Collator, dummy_picture
from igva.data.dataset import ChatDataset, ChatStream
from igva.data.imagined import REMEDY, Imagination, imagined_of, without_imagined
from igva.data.merging import merge_by_picture
from igva.data.records import Record
from igva.data.sources import is_stream, open_stream, read_records
from igva.data.templates import PLAIN, TEMPLATES
from igva.errors import UserError
from igva.files import write_errors
from igva.model.modeling_igva import IgvaForConditionalGeneration
from igva.model.processing_igva import IgvaProcessor
from igva.part_sources import resolve_part
from igva.train.allocator_warmup import warm_up_allocator
from igva.train.arguments import Recipe
from igva.train.distributed import check_distributed, deepspeed_config, leave_deepspeed, shard, shares, world_size
from igva.train.feature_cache import InstructionCache, LayerCache
from igva.train.packed_attention import use_packed_attention
from igva.train.place_words import add_place_words
from igva.train.precision import settle_precision
from igva.train.report import Report, data_facts, run_versions
from igva.train.resuming import beginning
from igva.train.stages import describe, lora_scale, set_trainable
from igva.train.starting import check_start
from igva.train.tracking import check_trackers
from igva.train.trainer import IgvaTrainer
from igva.train.validation import Validation
from igva.train.warmup import warm_up


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
    data = _read(recipe)
    facts = data_facts(recipe, data.train)
    begun = beginning(recipe, resume, facts, run_versions(), main=state.is_main_process)
    state.wait_for_everyone()  # before one of them writes into the folder that another looks into
    output = Path(recipe.output)
    set_seed(recipe.optim.seed)
    model, processor = build_from_recipe(recipe)
    imagination = _imagination(data, model)
    layers = _layer_cache(recipe, model, processor, state)
    figures = begun.figures
    if recipe.warm_up.place_words:
        add_place_words(model, processor, recipe.warm_up.place_words)
    if recipe.warm_up.steps and begun.checkpoint is None and layers is not None:
        set_trainable(model, dataclasses.replace(recipe, stage="align", trained=["projector"]))
        figures = warm_up(model, processor, recipe, layers)
    set_trainable(model, recipe)
    if recipe.allocator.steps and begun.checkpoint is None and layers is not None:
        figures |= _warm_up_allocator(recipe, model, processor, layers, data.train)
    if recipe.model.init_from and not recipe.model.is_whole and recipe.adapts():
        restore_lora(model, trained_path(recipe.model.init_from), lora_scale(recipe.lora))
    report = Report(recipe, model, facts, precision=precision, begun=begun, name=name, overrides=overrides)
    train, validation = (_dataset(recipe, records, model, processor, layers, imagination, state) for records in data)
    if state.is_main_process:
        for line in [*report.decided(), *describe(model)]:
            print(line)
        with write_errors(output):
            output.mkdir(parents=True, exist_ok=True)
            report.write(output, figures)
    if recipe.optim.max_steps != 0:
        figures |= _train(recipe, model, processor, train, validation, begun.checkpoint)
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


@dataclasses.dataclass
class _Data:
    """Records of training and validation; a path in place of records is a stream."""

    train: Sequence[Record] | str | list[str]
    validation: Sequence[Record] | None

    def __iter__(self) -> Any:
        return iter((self.train, self.validation))


def _read(recipe: Recipe) -> _Data:
    """Raises ``UserError`` for everything that is wrong with the files themselves."""
    data, optim = recipe.data, recipe.optim
    train: Any = data.train
    if not is_stream(train):
        train = _listed(recipe, train, data.leave_out)
        if data.merge_turns:
            train = merge_by_picture(train, data.merge_turns, optim.seed)
    elif data.leave_out:
        raise UserError("data.train is streamed, nothing can be left out of it: set data.leave_out=[]")
    elif data.merge_turns:
        raise UserError("data.train is streamed, its conversations cannot be merged: set data.merge_turns=0")
    elif data.cache_features or data.zero_images:
        raise UserError("data.train is streamed, its features cannot be cached: set data.cache_features=false")
    elif optim.max_steps < 0:
        raise UserError("data.train is streamed, its length is unknown: set optim.max_steps")
    if data.validation is not None and is_stream(data.validation):
        raise UserError("data.validation is streamed: give a file or a Hugging Face data set")
    return _Data(train, _listed(recipe, data.validation) if data.validation else None)


def _listed(recipe: Recipe, source: str | list[str], leave_out: Sequence[str] = ()) -> list[Record]:
    """The records of data that is not a stream."""
    records = read_records(source, recipe.data.image_root, leave_out)
    if not recipe.data.imagined:
        records = without_imagined(records)
        if not records:
            raise UserError("data.imagined=false leaves nothing to learn from: every sample imagines a class")
    elif not recipe.data.cache_features and len(without_imagined(records)) < len(records):
        raise UserError(f"some samples imagine a class, which needs data.cache_features=true: set it, or {REMEDY}")
    return records


def _imagination(data: _Data, model: IgvaForConditionalGeneration) -> Imagination | None:
    """What imagines classes for these records; None where there is nothing to imagine.

    Raises:
        UserError: the model has no words layer to imagine with, or a record asks for what is not there.
    """
    imagined = [
        (record, found)
        for records in data
        if records is not None and not is_stream(records)
        for record in records
        if (found := imagined_of(record)) is not None
    ]
    if not imagined:
        return None
    imagination = Imagination.of(model)
    for record, found in imagined:
        imagination.check(found, model.model.fusion.dims.num_patches, f"sample {record.id}")
    return imagination


def build_from_recipe(recipe: Recipe, train: bool = True) -> tuple[IgvaForConditionalGeneration, IgvaProcessor]:
    """The model a recipe starts from, and its processor.

    Args:
        train: False to get a model that can be saved: nothing in 4 bits.
    """
    recipe, _ = settle_precision(recipe, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    if recipe.model.is_whole:
        return _whole(recipe)
    settings, dtype = recipe.model, getattr(torch, recipe.model.dtype)
    if settings.retrofit:
        model, processor = _retrofitted(settings.retrofit, recipe, dtype)
    else:
        model, processor = build(
            settings.vision,
            settings.text,
            settings.instruction,
            chat_template=settings.chat_template,
            dtype=dtype,
            attention=settings.attention,
            quantize=recipe.lora.quantize if train and recipe.lora.quantize != "none" else None,
            vision_grid=settings.vision_grid,
            **settings.config_fields(),
        )
    if settings.init_from:
        apply_trained(model, trained_path(settings.init_from), lora=not recipe.adapts())
    return model, processor


def _whole(recipe: Recipe) -> tuple[IgvaForConditionalGeneration, IgvaProcessor]:
    """An igva model with all of its parts, as any tool of igva's writes it."""
    model, processor = load(recipe.model.init_from or "", "cpu", recipe.model.dtype)
    _settle_chat(model, processor, recipe)
    return model, processor


def _settle_chat(model: IgvaForConditionalGeneration, processor: IgvaProcessor, recipe: Recipe) -> None:
    """Give a model that brings its own template and attention those of the recipe, where it names them."""
    if recipe.model.chat_template:
        processor.chat_template = TEMPLATES[recipe.model.chat_template]
    if recipe.model.attention:
        model.model.language_model.set_attn_implementation(recipe.model.attention)


def _retrofitted(source: str, recipe: Recipe, dtype: torch.dtype) -> tuple[IgvaForConditionalGeneration, IgvaProcessor]:
    """A LLaVA checkpoint made into an igva model, with the recipe's template and attention."""
    settings = recipe.model
    instruction = resolve_part(settings.instruction) if settings.instruction else None
    converted = retrofit_llava(source, instruction, add_vision=settings.add_vision, **settings.fusion_kwargs)
    if converted.processor is None:
        raise UserError(f"{source} has no tokenizer or no image processor: put them beside its weights")
    _settle_chat(converted.model, converted.processor, recipe)
    return converted.model.to(dtype), converted.processor


def export(recipe: Recipe, trained: Path, output: Path) -> None:
    """Write a model as one Hugging Face folder, LoRA folded in."""
    model, processor = build_from_recipe(recipe, train=False)
    apply_trained(model, trained)
    with write_errors(output):
        model.save_pretrained(output)
        processor.save_pretrained(output)


def _layer_cache(
    recipe: Recipe, model: IgvaForConditionalGeneration, processor: IgvaProcessor, state: PartialState
) -> LayerCache | None:
    if not (recipe.data.cache_features or recipe.warm_up.steps):
        return None
    if torch.cuda.is_available():
        model.to(state.device)
    workers = recipe.data.feature_workers
    return LayerCache(model, processor, workers=None if workers == "auto" else workers)


def _warm_up_allocator(
    recipe: Recipe, model: IgvaForConditionalGeneration, processor: IgvaProcessor, layers: LayerCache, records: Any
) -> dict[str, float]:
    layers.fill((image for record in records for image in record.images), on_bad=_on_bad(recipe))
    return warm_up_allocator(model, processor, recipe, layers, records)


def _on_bad(recipe: Recipe) -> str:
    """What is to become of a picture whose features cannot be computed."""
    return "fail" if recipe.data.on_bad_image == "fail" else "record"


def _dataset(
    recipe: Recipe,
    records: Any,
    model: Any,
    processor: IgvaProcessor,
    layers: LayerCache | None,
    imagination: Imagination | None,
    state: PartialState,
) -> ChatDataset | ChatStream | None:
    data = recipe.data
    if records is None:
        return None
    options: dict[str, Any] = {
        "chat_template": PLAIN if data.template == "plain" else None,
        "max_length": data.max_length,
        "on_bad_image": data.on_bad_image,
        "augment": data.augment,
        "seed": recipe.optim.seed,
    }
    if is_stream(records):
        return ChatStream(open_stream(records, data.image_root), processor, imagined=data.imagined, **options)
    instructions = None
    if data.cache_features and layers is not None:
        with state.main_process_first():  # the others find everything there
            layers.refresh()
            layers.fill((image for record in records for image in record.images), on_bad=_on_bad(recipe))
            if processor.use_instructions:
                instructions = InstructionCache(model, processor)
                instructions.fill(turn for record in records for turn in processor.user_turns(record.chat))
    return ChatDataset(
        records,
        processor,
        layers=layers if data.cache_features else None,
        instructions=instructions,
        imagination=imagination,
        zero_images=data.zero_images,
        **options,
    )


def _learns_text(model: Any) -> bool:
    """Whether any weight of the language model, or of its LoRA, is trained."""
    return any(
        parameter.requires_grad
        for name, parameter in model.named_parameters()
        if "language_model." in name or "lm_head" in name
    )


def _train(
    recipe: Recipe, model: Any, processor: IgvaProcessor, dataset: Any, validation: Any, checkpoint: Path | None
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
        train_dataset=dataset,
        eval_dataset=validation,
        data_collator=Collator(processor, recipe.data.pack_tokens, dummy),
        recipe=recipe,
        validation=Validation(validation, Collator(processor, dummy=dummy), micro) if validation else None,
    )
    model.train()
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
