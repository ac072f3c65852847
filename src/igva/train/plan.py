"""What a recipe takes in memory, disk and time, said before anything is loaded: only configurations are read."""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer, LlavaConfig

from igva.answering import resolve_model
from igva.building import IMAGE_TOKEN, sentence_encoder_settings
from igva.checkpoints.retrofit import DEFAULT_INSTRUCTION_DIM, ensemble_options, widened_tower
from igva.data.imagined import without_imagined
from igva.data.merging import merge_by_picture
from igva.data.records import Record
from igva.data.sources import is_stream, read_records
from igva.ensembles import ensemble_config
from igva.errors import UserError, first_line
from igva.model.configuration_igva import IgvaConfig
from igva.model.modeling_igva import IgvaForConditionalGeneration
from igva.model_settings import config_of_llava, config_of_parts
from igva.part_sources import resolve_part
from igva.train.arguments import Recipe
from igva.train.memory import Memory, Step, step_flops, step_memory
from igva.train.precision import settle_precision
from igva.train.stages import set_trainable

# TFLOP/s that a device sustains, where nothing better is known: 40 % of the 312 an A100 is specified for in bfloat16,
# half of its 19.5 in float32 (NVIDIA A100 data sheet).
SUSTAINED_BF16, SUSTAINED_FP32 = 125.0, 10.0
CPU_SHARE = 0.5  # of what large matrix products reach on a CPU, what training does
CHARACTERS_PER_TOKEN = 4  # of English text, about


Tick = Callable[[], object]


def _silent() -> None:
    pass


@dataclass(frozen=True)
class Mix:
    """What is known of the training data; None where that cannot be told without fetching it.

    Attributes:
        samples, pictures: how many.
        text_tokens: of a sample, the mean.
        most_pictures: in one sample.
    """

    samples: int | None = None
    pictures: int | None = None
    text_tokens: int | None = None
    most_pictures: int = 1


@dataclass(frozen=True)
class Disk:
    """Bytes that a run writes.

    Attributes:
        checkpoints: all that stand at once, the optimizer's state included.
        trained: what was trained, alone.
        export: the whole model.
        features: of the feature cache; None where the number of pictures is unknown.
    """

    checkpoints: int
    trained: int
    export: int
    features: int | None


@dataclass(frozen=True)
class Time:
    """How much there is to compute.

    Attributes:
        steps: None where the number of samples is unknown, and then ``hours`` is too.
        step_tflop: of one step, over all devices.
        hours: at ``tflops`` per second and device, the features to be cached included.
    """

    steps: int | None
    step_tflop: float
    tflops: float
    hours: float | None


@dataclass(frozen=True)
class Plan:
    """One run. ``parameters`` has, by part, all and the trained ones."""

    parameters: dict[str, tuple[int, int]]
    mix: Mix
    step: Step
    memory: Memory
    disk: Disk
    time: Time


def make_plan(
    recipe: Recipe, mix: Mix, *, devices: int = 1, tflops: float | None = None, gpu: bool = True, tick: Tick = _silent
) -> Plan:
    """Plan a run.

    Args:
        mix: see ``data_mix``.
        tflops: what a device sustains; default: ``SUSTAINED_BF16`` or ``SUSTAINED_FP32``, on the CPU ``cpu_tflops``.
        gpu: False plans for training on the CPU.
        tick: called after each of the long parts.

    Raises:
        UserError: a part's configuration cannot be read or does not fit, or the settings do not fit together.
    """
    recipe = _settled(recipe, gpu)
    step, memory = plan_memory(recipe, mix, devices, gpu, tick)
    model = planned_model(recipe)
    whole = sum(parameter.nbytes for parameter in model.parameters())
    with torch.device("meta"):
        set_trainable(model, recipe)
    parameters = _count(model)
    trained = 4 * sum(count for _, count in parameters.values())
    return Plan(
        parameters,
        mix,
        step,
        memory,
        Disk(
            checkpoints=_checkpoint(recipe, trained) * (recipe.optim.keep_checkpoints + 1),  # one more while it is made
            trained=trained,
            export=whole if recipe.export else 0,
            features=_feature_cache(recipe, model.model.fusion, mix.pictures),
        ),
        _time(recipe, mix, devices, tflops or _sustained(recipe, gpu), tick),
    )


def _sustained(recipe: Recipe, gpu: bool) -> float:
    if not gpu:
        return cpu_tflops(torch.bfloat16 if recipe.optim.bf16 else torch.float32)
    return SUSTAINED_BF16 if recipe.optim.bf16 else SUSTAINED_FP32


def cpu_tflops(dtype: torch.dtype, side: int = 1024, repeats: int = 7) -> float:
    """What training sustains on this CPU, in TFLOP/s: ``CPU_SHARE`` of the median of some matrix products."""
    left, right = torch.ones(side, side, dtype=dtype), torch.ones(side, side, dtype=dtype)
    left @ right  # the first one starts the threads
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        left @ right
        seconds.append(time.perf_counter() - start)
    return CPU_SHARE * 2 * side**3 / statistics.median(seconds) / 1e12


def plan_memory(recipe: Recipe, mix: Mix, devices: int, gpu: bool, tick: Tick = _silent) -> tuple[Step, Memory]:
    """The worst step and what it takes; arguments and errors as for ``make_plan``."""
    recipe = _settled(recipe, gpu)
    model = planned_model(recipe)
    step = worst_step(recipe, model.model.fusion.num_tokens, mix.most_pictures, devices, gpu)
    memory = step_memory(model, recipe, step)
    tick()
    return step, memory


def _settled(recipe: Recipe, gpu: bool) -> Recipe:
    """The recipe with a plain precision: a GPU need not be here, and is taken to multiply bfloat16; the CPU is."""
    return settle_precision(recipe, torch.device("cuda" if gpu else "cpu"), fast=True if gpu else None)[0]


def planned_model(recipe: Recipe) -> IgvaForConditionalGeneration:
    """The model a recipe of settled precision starts from, on the meta device: shapes without weights.

    Raises:
        UserError: a configuration cannot be read, or the parts do not fit together.
    """
    try:
        with torch.device("meta"):
            model = IgvaForConditionalGeneration(_config(recipe))
    except ValueError as error:
        raise UserError(first_line(error)) from error
    if recipe.model.attention == "eager":  # the others take the same memory
        model.model.language_model.set_attn_implementation("eager")
    return model.to(getattr(torch, recipe.model.dtype))


def _config(recipe: Recipe) -> IgvaConfig:
    settings = recipe.model
    if settings.is_whole:
        return _whole_config(str(settings.init_from))
    instruction: Any = None
    pooling: dict[str, Any] = {}
    if settings.instruction:
        instruction = _read(settings.instruction)
        _, pooling = sentence_encoder_settings(resolve_part(settings.instruction))
    if settings.retrofit:
        return _retrofit_config(recipe, instruction, pooling)
    if isinstance(settings.vision, str):
        vision = _read(settings.vision)
    else:
        vision = ensemble_config(settings.vision, settings.vision_grid)
    text = _read(settings.text)
    tokenizer = _read(settings.text, AutoTokenizer)
    image_token_id = tokenizer.get_vocab().get(IMAGE_TOKEN, len(tokenizer))
    text.vocab_size = max(text.vocab_size, len(tokenizer), image_token_id + 1)
    return config_of_parts(
        vision, text, instruction, image_token_id=image_token_id, **pooling, **settings.config_fields()
    )


def _whole_config(source: str) -> IgvaConfig:
    config = _read(resolve_model(source))
    if not isinstance(config, IgvaConfig):
        raise UserError(
            f"{source} is a {config.model_type}, not an igva model: `igva convert llava` makes one of a LLaVA"
        )
    return config


def _retrofit_config(recipe: Recipe, instruction: Any, pooling: dict[str, Any]) -> IgvaConfig:
    settings = recipe.model
    source = str(settings.retrofit)
    llava = _read(source)
    if not isinstance(llava, LlavaConfig):
        raise UserError(f"{source} is a {llava.model_type}, not a llava: set model.vision and model.text instead")
    vision, options = llava.vision_config, {"base_layer": llava.vision_feature_layer}
    if settings.add_vision:
        vision = widened_tower(source, llava, settings.add_vision)
        options = ensemble_options(vision, llava.vision_feature_layer, settings.fusion_kwargs.get("num_groups", 4))
    return config_of_llava(
        llava,
        vision,
        instruction,
        instruction_dim=instruction.hidden_size if instruction else DEFAULT_INSTRUCTION_DIM,
        fusion_kwargs={**options, **settings.fusion_kwargs},
        **pooling,
    )


def _read(source: str | None, kind: Any = AutoConfig) -> Any:
    """The configuration, or the tokenizer, of a part."""
    try:
        return kind.from_pretrained(resolve_part(source or ""), trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        what = "configuration" if kind is AutoConfig else "tokenizer"
        raise UserError(f"the {what} of {source} cannot be read: {first_line(error)}") from error


# --- data ---------------------------------------------------------------------------------------------------------


def data_mix(recipe: Recipe, samples: int | None = None) -> Mix:
    """Count the training data where it is in local files; nothing is fetched.

    Args:
        samples: overrides the number found.

    Raises:
        UserError: a file is malformed.
    """
    data = recipe.data
    files = [data.train] if isinstance(data.train, str) else data.train
    if is_stream(data.train) or not all(Path(file).is_file() for file in files):
        return Mix(samples, samples)
    records = read_records(data.train, data.image_root, data.leave_out)
    if not data.imagined:
        records = without_imagined(records)
    if data.merge_turns:
        records = merge_by_picture(records, data.merge_turns, recipe.optim.seed)
    return Mix(
        samples or len(records),
        pictures=len({image for record in records for image in record.images}),
        text_tokens=sum(map(_characters, records)) // len(records) // CHARACTERS_PER_TOKEN,
        most_pictures=max(1, *(len(record.images) for record in records)),
    )


def _characters(record: Record) -> int:
    return sum(len(item.get("text", "")) for message in record.chat for item in message["content"])


def worst_step(recipe: Recipe, visual_tokens: int, pictures: int, devices: int, gpu: bool) -> Step:
    """The step that takes the most memory: every sample has the full length and the most pictures that go into it.

    Raises:
        UserError: the batch does not divide evenly over the devices, or a picture is longer than a sample may be.
    """
    optim, longest = recipe.optim, recipe.data.max_length
    if optim.batch_size % devices:
        raise UserError(f"optim.batch_size {optim.batch_size} does not divide evenly over {devices} devices")
    if visual_tokens >= longest:
        raise UserError(f"data.max_length {longest} leaves no room beside {visual_tokens} visual tokens: raise it")
    share = optim.batch_size // devices
    micro = min(optim.micro_batch_size or share, share)
    if share % micro:
        raise UserError(f"optim.micro_batch_size {micro} does not divide the {share} samples of each device")
    return Step(
        samples=micro,
        tokens=longest,
        pictures=min(pictures, (longest - 1) // visual_tokens),
        accumulate=share // micro,
        devices=devices,
        gpu=gpu,
    )


# --- parameters, disk, time ---------------------------------------------------------------------------------------


def _count(model: Any) -> dict[str, tuple[int, int]]:
    """Part → all parameters, and those trained."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for name, parameter in model.named_parameters():
        part = name.removeprefix("model.").split(".")[0].replace("_", " ")
        counts[part][0] += parameter.numel()
        counts[part][1] += parameter.numel() * parameter.requires_grad
    return {part: (total, trained) for part, (total, trained) in counts.items()}


def _checkpoint(recipe: Recipe, trained: int) -> int:
    """Bytes of one: what is trained in float32 and AdamW's two states; DeepSpeed writes its weights once more."""
    if recipe.optim.max_steps == 0:
        return 0
    return trained * (4 if recipe.distributed.startswith("zero") else 3)


def _feature_cache(recipe: Recipe, fusion: Any, pictures: int | None) -> int | None:
    """Bytes: a patch map and a descriptor per tap and picture, in bfloat16."""
    if not (recipe.data.cache_features or recipe.warm_up.steps):
        return 0
    vectors = len(fusion.taps) * (fusion.dims.num_patches + 1)
    return None if pictures is None else 2 * vectors * fusion.dims.vision_dim * pictures


def _time(recipe: Recipe, mix: Mix, devices: int, tflops: float, tick: Tick) -> Time:
    """Of samples of mean length; of full length where nothing is known of the data."""
    optim, model = recipe.optim, planned_model(recipe)
    tokens = model.model.fusion.num_tokens + (mix.text_tokens or recipe.data.max_length)
    sample = Step(samples=1, tokens=min(tokens, recipe.data.max_length), gpu=False)
    per_sample = step_flops(model, recipe, sample)
    tick()
    steps: int | None = optim.max_steps
    if optim.max_steps < 0:
        steps = None if mix.samples is None else math.ceil(mix.samples * optim.epochs / optim.batch_size)
    once = 0
    if recipe.data.cache_features:
        uncached = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, cache_features=False))
        once = (step_flops(planned_model(uncached), uncached, sample) - per_sample) * (mix.pictures or 0)
        tick()
    step = per_sample * optim.batch_size
    hours = None if steps is None else (steps * step + once) / (tflops * 1e12 * devices * 3600)
    return Time(steps, step / 1e12, tflops, hours)
