"""What a recipe trains on: records, what imagines classes for them, cached features, and the data set of samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import PartialState

from igva.data.dataset import ChatDataset, ChatStream
from igva.data.imagined import REMEDY, Imagination, imagined_of, without_imagined
from igva.data.merging import merge_by_picture
from igva.data.records import Record
from igva.data.sources import is_stream, open_stream, read_records
from igva.data.templates import PLAIN
from igva.errors import UserError
from igva.model.modeling_igva import IgvaForConditionalGeneration
from igva.model.processing_igva import IgvaProcessor
from igva.train.arguments import Recipe
from igva.train.feature_cache import InstructionCache, LayerCache


@dataclass
class Data:
    """Records of training and validation; a path in place of records is a stream."""

    train: Sequence[Record] | str | list[str]
    validation: Sequence[Record] | None

    def __iter__(self) -> Any:
        return iter((self.train, self.validation))


def read_data(recipe: Recipe) -> Data:
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
    return Data(train, _listed(recipe, data.validation) if data.validation else None)


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


def imagination_for(data: Data, model: IgvaForConditionalGeneration) -> Imagination | None:
    """What imagines classes for these records; None where there is nothing to imagine.

    Raises:
        UserError: the model has no words layer to imagine with, or a record asks for what is not there.
    """
    imagining = [
        (record, imagined)
        for records in data
        if records is not None and not is_stream(records)
        for record in records
        if (imagined := imagined_of(record)) is not None
    ]
    if not imagining:
        return None
    imagination = Imagination.of(model)
    for record, imagined in imagining:
        imagination.check(imagined, model.model.fusion.dims.num_patches, f"sample {record.id}")
    return imagination


def layer_cache(
    recipe: Recipe, model: IgvaForConditionalGeneration, processor: IgvaProcessor, state: PartialState
) -> LayerCache | None:
    """The cache of layer means, its tower on the run's device; None where the run keeps none."""
    if not (recipe.data.cache_features or recipe.warm_up.steps):
        return None
    if torch.cuda.is_available():
        model.to(state.device)
    workers = recipe.data.feature_workers
    return LayerCache(model, processor, workers=None if workers == "auto" else workers)


def fill(layers: LayerCache, records: Sequence[Record], recipe: Recipe) -> None:
    """Compute the layer means of all pictures that are not there yet."""
    on_bad = "fail" if recipe.data.on_bad_image == "fail" else "record"
    layers.fill((image for record in records for image in record.images), on_bad=on_bad)


def dataset(
    recipe: Recipe,
    records: Any,
    model: Any,
    processor: IgvaProcessor,
    layers: LayerCache | None,
    imagination: Imagination | None,
    state: PartialState,
) -> ChatDataset | ChatStream | None:
    """The samples of these records, features computed where they are cached; None where there are no records."""
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
            fill(layers, records, recipe)
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
