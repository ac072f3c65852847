"""A recipe: typed fields, read from YAML, checked before anything heavy loads."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml

from igva.errors import UserError


@dataclass
class ModelArguments:
    """What the model is put together from."""

    vision: str = ""  # folder, hub id, or embedded:vision
    text: str = ""  # folder, hub id, or embedded:text
    instruction: str | None = None  # folder, hub id, or embedded:instruction
    chat_template: Literal["chatml", "vicuna_v1"] | None = None  # default: the language model's own
    fusion: str = "igva"
    fusion_kwargs: dict[str, Any] = field(default_factory=dict)
    image_size: int | None = None
    vision_pool: int = 1
    projector_hidden_size: int | None = None
    projector_norm: bool = False
    init_from: str | None = None  # output folder of an earlier stage; its projector is taken over


@dataclass
class DataArguments:
    """What it learns from."""

    train: str = ""  # LLaVA JSON or JSON Lines
    image_root: str | None = None  # folder the image paths start from; default: the file's
    cells: str | None = None  # words of each visual token's cell, for the warm-up
    template: Literal["chat", "plain"] = "chat"  # plain: LLaVA's stage 1, picture then caption, no roles
    max_length: int = 2048
    cache_features: bool = False  # layer means and sentence vectors computed once
    zero_images: bool = False  # the blind control: every picture's features are zero


@dataclass
class LoraArguments:
    """Low-rank adapters on every linear layer of the language model; rank 0 leaves it frozen or trains it whole."""

    rank: int = 0
    alpha: int = 32
    dropout: float = 0.0


@dataclass
class WarmUpArguments:
    """Dense warm-up of the projector: each visual token learns the word drawn in its cell.

    An option for data that comes with cell labels, not part of the paper's stage 1.
    """

    steps: int = 0  # 0: off
    batch_size: int = 16
    learning_rate: float = 1e-3
    temperature: float = 0.05  # of the cosine cross-entropy over the words


@dataclass
class OptimArguments:
    """How it learns; the defaults are the paper's stage 2."""

    learning_rate: float = 2e-5  # language model or its LoRA
    projector_lr: float | None = None  # default: learning_rate
    fusion_lr: float | None = None  # default: learning_rate
    batch_size: int = 128
    micro_batch_size: int | None = None  # samples at a time; default: the whole batch
    epochs: float = 1.0
    max_steps: int = -1  # -1: by epochs
    warmup_ratio: float = 0.03
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    bf16: bool = False  # autocast; the trained weights stay float32
    seed: int = 0
    workers: int = 0
    logging_steps: int = 10
    save_steps: int = 100


@dataclass
class Recipe:
    """One training run."""

    stage: Literal["align", "instruct"] = "align"  # align trains the projector; instruct allocator, projector, text
    output: str = ""
    model: ModelArguments = field(default_factory=ModelArguments)
    data: DataArguments = field(default_factory=DataArguments)
    lora: LoraArguments = field(default_factory=LoraArguments)
    warm_up: WarmUpArguments = field(default_factory=WarmUpArguments)
    optim: OptimArguments = field(default_factory=OptimArguments)


def recipe_names() -> list[str]:
    """The packaged recipes."""
    return sorted(p.name.removesuffix(".yaml") for p in _folder().iterdir() if p.name.endswith(".yaml"))


def recipe_text(name_or_path: str) -> str:
    """The YAML text of a packaged recipe or a file.

    Raises:
        UserError: there is neither.
    """
    if name_or_path in recipe_names():
        return (_folder() / f"{name_or_path}.yaml").read_text(encoding="utf-8")
    path = Path(name_or_path)
    if path.is_file():
        return path.read_text(encoding="utf-8")
    raise UserError(f"there is no recipe {name_or_path!r}: choose from {', '.join(recipe_names())}, or name a file")


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
    for key, value in (
        ("output", recipe.output),
        ("model.vision", recipe.model.vision),
        ("model.text", recipe.model.text),
        ("data.train", recipe.data.train),
    ):
        if not value:
            raise UserError(f"{name_or_path}: {key} is not set")
    if recipe.warm_up.steps and not recipe.data.cells:
        raise UserError(f"{name_or_path}: warm_up needs cell labels: set data.cells, or warm_up.steps=0")
    return recipe


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
        if value is None:
            return None
        return _value(next(option for option in options if option is not type(None)), value, key)
    if origin is dict:
        hint = dict
    if hint is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        try:  # YAML reads 1e-3 as text
            return float(value)
        except ValueError:
            pass
    if isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise UserError(f"{key} is {value!r}: a {hint.__name__} is expected")
