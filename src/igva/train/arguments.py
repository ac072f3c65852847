"""A recipe: typed fields, read from YAML, checked before anything heavy loads."""

from __future__ import annotations

import dataclasses
import difflib
import math
import sys
import types
import typing
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml

from igva.errors import UserError

TRACKERS = ("tensorboard", "trackio", "wandb")
_FINITE = sys.float_info.max
PARTS = ("vision", "fusion", "projector", "text")  # what a run may train, as `trained` names it
# Settings of the model section that are fields of IgvaConfig by the same name, beside the fusion.
CONFIG_FIELDS = (
    "image_size",
    "vision_pool",
    "normalize_layers",
    "projector_hidden_size",
    "projector_norm",
    "visual_positions",
)
_NOT_WITH_RETROFIT = ("vision_grid", *CONFIG_FIELDS)
_WITH_WHOLE = ("init_from", "chat_template", "dtype", "attention")  # settings that may stand beside a whole model
# Of settings that are numbers, the least and the most that can be meant; a setting that is None or a word has no range.
_RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("optim.batch_size", "optim.logging_steps", "optim.save_steps"), (1, math.inf)),
    **dict.fromkeys(("optim.keep_checkpoints", "optim.micro_batch_size", "optim.eval_steps"), (1, math.inf)),
    **dict.fromkeys(("model.vision_grid", "model.image_size", "model.vision_pool"), (1, math.inf)),
    **dict.fromkeys(("model.projector_hidden_size", "data.max_length", "data.pack_tokens"), (1, math.inf)),
    **dict.fromkeys(("warm_up.batch_size", "allocator.batch_size", "allocator.least", "lora.alpha"), (1, math.inf)),
    **dict.fromkeys(("optim.learning_rate", "optim.projector_lr", "optim.fusion_lr"), (0, _FINITE)),
    **dict.fromkeys(("optim.vision_lr", "optim.weight_decay", "optim.max_grad_norm"), (0, _FINITE)),
    **dict.fromkeys(("warm_up.learning_rate", "warm_up.place_words"), (0, _FINITE)),
    **dict.fromkeys(("allocator.learning_rate", "allocator.fusion_lr"), (0, _FINITE)),
    **dict.fromkeys(("optim.seed", "optim.workers", "data.feature_workers", "data.merge_turns"), (0, 2**32 - 1)),
    **dict.fromkeys(("lora.rank", "warm_up.steps", "allocator.steps"), (0, math.inf)),
    **dict.fromkeys(("data.max_bad_share", "warm_up.imagined", "optim.warmup_ratio", "lora.dropout"), (0, 1)),
    "optim.max_steps": (-1, math.inf),
    "optim.epochs": (sys.float_info.min, _FINITE),
    "warm_up.temperature": (1e-6, _FINITE),
    "warm_up.beside": (0, _FINITE),
}
_KINDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", dict: "a mapping"}


@dataclass
class ModelArguments:
    """What the model is put together from: vision and text, or a LLaVA checkpoint to retrofit."""

    vision: str | list[str | dict[str, Any]] = ""  # folder, hub id, or embedded:vision; a list: one tower of several
    vision_grid: int | None = None  # cells to the side of the grid of several encoders; default: the first one's
    text: str = ""  # folder, hub id, or embedded:text
    instruction: str | None = None  # folder, hub id, or embedded:instruction
    retrofit: str | None = None  # a LLaVA checkpoint in place of vision and text; the fusion is igva
    add_vision: list[str | dict[str, Any]] = field(default_factory=list)  # encoders beside the retrofitted LLaVA's own
    chat_template: Literal["chatml", "llama3", "qwen3", "vicuna_v1"] | None = None  # default: the language model's own
    fusion: str = "igva"  # a name of `igva fusions`
    fusion_kwargs: dict[str, Any] = field(default_factory=dict)  # the fusion's own options
    image_size: int | None = None  # side of the square picture in pixels; default: the tower's
    vision_pool: int = 1  # so many patches to the side are averaged into one visual token
    projector_hidden_size: int | None = None  # width of the projector's middle; default: the language model's
    projector_norm: bool = False  # LayerNorm over the fused channels, before the projector
    visual_positions: bool = False  # a learnt vector per visual token, behind the projector: where it lies
    normalize_layers: bool = False  # every layer mean at mean 0 and variance 1 per token, before the fusion
    # Output folder of an earlier run, or embedded:tiny: what that trained is taken over. Without vision and text: any
    # igva model (a folder that igva wrote, or a hub id), which brings all of its parts.
    init_from: str | None = None
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # of what stays frozen; what is trained is float32
    attention: Literal["eager", "sdpa", "flash_attention_2"] | None = None  # default: transformers' choice

    @property
    def is_whole(self) -> bool:
        """Whether the run starts from a whole igva model, which brings its parts, fusion and settings."""
        return bool(self.init_from) and not (self.vision or self.text or self.retrofit)

    def config_fields(self) -> dict[str, Any]:
        """The fields of ``IgvaConfig`` among the settings."""
        return {name: getattr(self, name) for name in ("fusion", "fusion_kwargs", *CONFIG_FIELDS)}


@dataclass
class DataArguments:
    """What it learns from."""

    train: str | list[str] = ""  # LLaVA JSON or JSON Lines, a Hugging Face data set, WebDataset shards
    validation: str | list[str] | None = None  # the same, never trained on
    image_root: str | None = None  # folder the image paths start from; default: the file's
    cells: str | list[str] | None = None  # files: words of each visual token's cell, for the warm-up
    template: Literal["chat", "plain"] = "chat"  # plain: LLaVA's stage 1, picture then caption, no roles
    max_length: int = 2048  # tokens of a sample, visual ones included; longer ones are cut
    pack_tokens: int | None = None  # samples of a step share rows of at most this many tokens; default: a row each
    leave_out: list[str] = field(default_factory=list)  # sources of data.train that this run does not learn from
    merge_turns: int = 0  # conversations about one picture share a sample of at most this many turns; 0: one each
    group_by: Literal["modality_length", "none"] = "modality_length"  # which samples make up a step
    cache_features: bool = False  # layer means and sentence vectors computed once
    feature_workers: int | Literal["auto"] = "auto"  # processes that compute them; auto: one per core; 0: none
    imagined: bool = True  # conversations about an imagined class are learnt from; false leaves them out
    zero_images: bool = False  # the blind control: every picture's features are zero
    augment: bool = False  # small crops, brightness, contrast, JPEG; never mirrored: left must stay left
    on_bad_image: Literal["fail", "skip", "replace"] = "fail"  # skip the sample, or replace the picture by a blank
    max_bad_share: float = 0.02  # of the pictures seen; more than this stops the run


@dataclass
class LoraArguments:
    """Low-rank adapters on every linear layer of the language model; rank 0 trains it whole."""

    rank: int = 0  # of each pair of factors; 0: no adapters
    alpha: int = 32  # what they add is multiplied by alpha / rank
    dropout: float = 0.0  # on what goes into the adapters, in training
    quantize: Literal["none", "nf4"] = "none"  # nf4: the language model below the adapters in 4 bits (QLoRA)


@dataclass
class WarmUpArguments:
    """What the projector learns or is given before any language modelling; not part of the paper's stage 1.

    Dense warm-up: each visual token learns the word drawn in its cell. An option for data that comes with cell labels.
    """

    steps: int = 0  # 0: off
    beside: float = 0.0  # weight of the same loss beside that of the answers, in later steps that have pictures
    batch_size: int = 16  # pictures of a step of the warm-up; of one beside it, on each device
    learning_rate: float = 1e-3  # of the projector
    imagined: float = 0.33  # share of the pictures in photos.json, each time one is seen, to imagine a class on
    temperature: float = 0.05  # of the cosine cross-entropy over the words
    place_words: float = 0.0  # how much of left, right, top, bottom is added to the visual positions; needs no labels


@dataclass
class AllocatorArguments:
    """What the fusion's allocator learns before the language model is touched, with a readout that is thrown away.

    For questions with short answers, on cached features; not part of the paper's stage 2.
    """

    steps: int = 0  # 0: off
    batch_size: int = 64  # questions of a step
    learning_rate: float = 1e-3  # of the readout
    fusion_lr: float = 1e-3  # of the fusion
    least: int = 2  # an answer that is given less often in the data is not asked for


@dataclass
class OptimArguments:
    """How it learns; the defaults are the paper's stage 2."""

    learning_rate: float = 2e-5  # language model or its LoRA
    projector_lr: float | None = None  # default: learning_rate
    fusion_lr: float | None = None  # default: learning_rate
    vision_lr: float | None = None  # default: learning_rate
    batch_size: int = 128  # samples per step, over all devices
    micro_batch_size: int | None = None  # samples at a time on one device; default: its whole share of the batch
    epochs: float = 1.0  # passes through the data, where max_steps is -1
    max_steps: int = -1  # -1: by epochs
    # Of all learning rates; the first two fall to 0.
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    warmup_ratio: float = 0.03  # share of the steps in which the rates rise from 0
    weight_decay: float = 0.0  # AdamW's
    max_grad_norm: float = 1.0  # longer gradients are cut to this length
    bf16: bool | Literal["auto"] = "auto"  # autocast; the trained weights stay float32
    gradient_checkpointing: bool = False  # less memory, about a third more arithmetic
    seed: int = 0  # of new weights, order of the data, dropout and augmentation
    workers: int = 0  # processes that load data, per device
    logging_steps: int = 10  # steps between two lines of the log
    eval_steps: int | None = None  # how often data.validation is scored; default: at the end
    save_steps: int = 100  # steps between two checkpoints
    keep_checkpoints: int = 2  # how many of the newest stay


@dataclass
class Recipe:
    """One training run."""

    stage: Literal["align", "instruct"] = "align"  # align trains the projector; instruct fusion, projector, text
    output: str = ""  # folder of the run; it becomes a model folder
    trained: list[str] | None = None  # of PARTS; default: what the stage trains
    distributed: Literal["ddp", "fsdp", "zero2", "zero3"] = "ddp"  # how several devices share the work
    log_to: list[str] = field(default_factory=list)  # of tensorboard, trackio, wandb
    export: bool = True  # write the whole model beside what was trained; else `igva merge` does it later
    model: ModelArguments = field(default_factory=ModelArguments)
    data: DataArguments = field(default_factory=DataArguments)
    lora: LoraArguments = field(default_factory=LoraArguments)
    warm_up: WarmUpArguments = field(default_factory=WarmUpArguments)
    allocator: AllocatorArguments = field(default_factory=AllocatorArguments)
    optim: OptimArguments = field(default_factory=OptimArguments)

    def trains(self) -> tuple[str, ...]:
        """The parts that are trained, in the order of ``PARTS``."""
        chosen = self.trained
        if chosen is None:
            chosen = ["projector"] if self.stage == "align" else ["fusion", "projector", "text"]
        return tuple(part for part in PARTS if part in chosen)

    def adapts(self) -> bool:
        """Whether adapters of the language model are trained."""
        return bool(self.lora.rank) and "text" in self.trains()


def recipe_names() -> list[str]:
    """The packaged recipes."""
    return sorted(p.name.removesuffix(".yaml") for p in _folder().iterdir() if p.name.endswith(".yaml"))


def recipe_text(name_or_path: str) -> str:
    """The YAML text of a packaged recipe or a file.

    Raises:
        UserError: there is neither.
    """
    path = Path(name_or_path)
    if name_or_path in recipe_names() or not (path.is_file() or path.suffix):
        return packaged_text(name_or_path)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise UserError(f"{path} cannot be read: {reason}: see `igva recipe list` for the packaged ones") from error


def packaged_text(name: str) -> str:
    """The YAML text of a packaged recipe.

    Raises:
        UserError: there is none of that name; the message has the nearest one.
    """
    names = recipe_names()
    if name in names:
        return (_folder() / f"{name}.yaml").read_text(encoding="utf-8")
    near = difflib.get_close_matches(name, names, n=1)
    remedy = f"did you mean {near[0]}?" if near else f"choose from {', '.join(names)}"
    raise UserError(f"there is no recipe {name!r}: {remedy}")


def recipe_summary(name: str) -> str:
    """What a packaged recipe's first line says of it."""
    return packaged_text(name).partition("\n")[0].removeprefix(f"# {name}: ")


def _folder() -> Any:
    return resources.files("igva.recipes")


def load_recipe(name_or_path: str, overrides: typing.Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply ``section.key=value`` overrides.

    Raises:
        UserError: not YAML, an unknown key (with the nearest right one), a value of the wrong type, or a
            required field left empty.
    """
    try:
        values = yaml.safe_load(recipe_text(name_or_path)) or {}
    except yaml.YAMLError as error:
        raise UserError(f"{name_or_path} is not valid YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(values, dict):
        raise UserError(f"{name_or_path}: a mapping of settings is expected")
    for override in overrides:
        _override(values, override)
    recipe: Recipe = _typed(Recipe, values, "")
    if problem := _problem(recipe):
        raise UserError(f"{name_or_path}: {problem}")
    return recipe


def recipe_from(values: dict[str, Any]) -> Recipe:
    """A recipe from its settings as ``run.json`` keeps them.

    Raises:
        UserError: they are not this version's.
    """
    recipe: Recipe = _typed(Recipe, values, "")
    return recipe


def _problem(recipe: Recipe) -> str | None:
    """What is wrong with settings that are each of the right type."""
    model, data, optim, lora = recipe.model, recipe.data, recipe.optim, recipe.lora
    required: dict[str, Any] = {"output": recipe.output, "data.train": recipe.data.train}
    if not (model.retrofit or model.is_whole):
        required |= {"model.vision": model.vision, "model.text": model.text}
    for key, value in required.items():
        if not value:
            return f"{key} is not set"
    for key, (least, most) in _RANGES.items():
        section, _, name = key.partition(".")
        value = getattr(getattr(recipe, section), name)
        if isinstance(value, (int, float)) and not least <= value <= most:
            return f"{key} is {value:g}: {_range(least, most)} is expected"
    for name in recipe.trained or ():
        if name not in PARTS:
            return f"trained names {name!r}: choose from {', '.join(PARTS)}"
    for name in recipe.log_to:
        if name not in TRACKERS:
            return f"log_to names {name!r}: choose from {', '.join(TRACKERS)}"
    if model.retrofit and (model.vision or model.text):
        return "model.retrofit takes the place of model.vision and model.text: leave those out"
    if model.is_whole:
        own = [key for key in vars(model) if key not in _WITH_WHOLE and getattr(model, key) != _default(key)]
        if own:
            return f"model.init_from without model.vision is a whole model with its own {own[0]}: leave it out"
        if lora.quantize != "none":
            return "lora.quantize is for a language model that model.text names: set lora.quantize=none"
    if model.retrofit and lora.quantize != "none":
        return "model.retrofit cannot be loaded in 4 bits: set lora.quantize=none"
    if model.retrofit and model.fusion != "igva":
        return "model.retrofit makes an igva model: leave model.fusion at igva"
    if model.retrofit and not model.instruction:
        return "model.retrofit needs the sentence encoder for the questions: set model.instruction"
    if model.add_vision and not model.retrofit:
        return "model.add_vision is for model.retrofit: make model.vision a list instead"
    if model.vision_grid is not None and isinstance(model.vision, str) and not model.retrofit:
        return "model.vision_grid is the common grid of several encoders: leave it out, or make model.vision a list"
    for key in _NOT_WITH_RETROFIT if model.retrofit else ():
        if getattr(model, key) != _default(key):
            return f"model.retrofit takes everything but the fusion from its checkpoint: leave model.{key} out"
    if (recipe.warm_up.steps or recipe.warm_up.beside) and not data.cells:
        return "warm_up needs cell labels: set data.cells, or warm_up.steps=0 and warm_up.beside=0"
    if recipe.warm_up.beside and not data.cache_features:
        return "warm_up.beside reads cached features: set data.cache_features=true, or warm_up.beside=0"
    if recipe.warm_up.beside and recipe.distributed != "ddp":
        return "warm_up.beside needs the projector whole on each device: set distributed=ddp, or warm_up.beside=0"
    if recipe.warm_up.beside and "projector" not in recipe.trains():
        return "warm_up.beside teaches the projector, which this run does not train: add projector to trained"
    if recipe.allocator.steps and not data.cache_features:
        return "the allocator's warm-up reads cached features: set data.cache_features=true, or allocator.steps=0"
    if recipe.allocator.steps and "fusion" not in recipe.trains():
        return "the allocator's warm-up trains the fusion, which this run does not: add fusion to trained"
    if recipe.warm_up.place_words and model.retrofit:
        return "model.retrofit has no visual positions: set warm_up.place_words=0"
    if recipe.warm_up.place_words and not model.visual_positions:
        return "warm_up.place_words is added to the visual positions: set model.visual_positions=true"
    if recipe.warm_up.place_words and "projector" not in recipe.trains():
        return "warm_up.place_words changes the projector, which this run does not train: add projector to trained"
    if "vision" in recipe.trains() and (data.cache_features or recipe.warm_up.steps):
        return "a vision tower that is trained has no features to cache: set data.cache_features=false"
    if data.cache_features and data.augment:
        return "cached features cannot be augmented: set data.augment=false or data.cache_features=false"
    if data.zero_images and not data.cache_features:
        return "data.zero_images needs cached features: set data.cache_features=true"
    if lora.rank and "text" not in recipe.trains():
        return "lora adapts the language model, which this run does not train: set lora.rank=0, or add text to trained"
    if lora.quantize != "none" and "text" in recipe.trains() and not lora.rank:
        return "a language model in 4 bits can only be trained through adapters: set lora.rank"
    if optim.micro_batch_size and optim.batch_size % optim.micro_batch_size:
        return f"optim.batch_size {optim.batch_size} is not a multiple of micro_batch_size {optim.micro_batch_size}"
    if data.pack_tokens is not None and data.pack_tokens < data.max_length:
        return f"data.pack_tokens {data.pack_tokens} is less than data.max_length {data.max_length}: raise it"
    return None


def _range(least: float, most: float) -> str:
    if most == 1:
        return "a share from 0 to 1"
    if least == -1:
        return "-1 (by epochs), 0 or more"
    return "a number above 0" if 0 < least < 1 else f"{least:g} or more"


def _default(key: str) -> Any:
    """Of a setting of the model section."""
    return getattr(ModelArguments(), key)


def _override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals:
        raise UserError(f"{override!r} is not of the form key=value")
    *path, last = key.split(".")
    for name in path:
        values = values.setdefault(name, {})
        if not isinstance(values, dict):
            raise UserError(f"{key}: {name} is not a section")
    try:
        values[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{override!r}: the value is not valid YAML") from error


def _typed(cls: type, values: dict[str, Any], prefix: str) -> Any:
    hints = typing.get_type_hints(cls)
    for key in values:
        if key not in hints:
            raise UserError(f"unknown setting {prefix}{key}: {_nearest(key, prefix, hints)}")
    return cls(**{key: _value(hints[key], value, prefix + key) for key, value in values.items()})


def _nearest(key: str, prefix: str, hints: dict[str, Any]) -> str:
    if near := difflib.get_close_matches(key, hints, n=1):
        return f"did you mean {prefix}{near[0]}?"
    return f"it takes {', '.join(prefix + name for name in hints)}"


def _value(hint: Any, value: Any, key: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise UserError(f"{key} is a section: write its settings below it")
        return _typed(typing.cast(type, hint), value, f"{key}.")
    origin = typing.get_origin(hint)
    options = typing.get_args(hint)
    if origin is Literal:
        if value not in options:
            raise UserError(f"{key} is {value!r}: choose from {', '.join(map(str, options))}")
        return value
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in options:
            return None
        kinds = [option for option in options if option is not type(None)]
        words = [word for option in kinds if typing.get_origin(option) is Literal for word in typing.get_args(option)]
        if words:
            return value if value in words else _value_or_word(kinds[0], value, key, words)
        fitting = [option for option in kinds if isinstance(value, typing.get_origin(option) or option)]
        return _value([*fitting, *kinds][0], value, key)
    if origin is list:
        if not isinstance(value, list):
            raise UserError(f"{key} is {value!r}: a list is expected, such as [a, b]")
        return [_value(options[0], item, f"{key}[{number}]") for number, item in enumerate(value)]
    if origin is dict:
        hint = dict
    if hint is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        try:  # YAML reads 1e-3 as text
            return float(value)
        except ValueError:
            pass
    if isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise UserError(f"{key} is {value!r}: {_KINDS[hint]} is expected")


def _value_or_word(hint: Any, value: Any, key: str, words: list[str]) -> Any:
    """A setting that is a value of some type or one of a few words."""
    try:
        return _value(hint, value, key)
    except UserError as error:
        raise UserError(f"{error}, or {', '.join(words)}") from error
