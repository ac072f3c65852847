"""A model card: what is known of a model, from its configuration, its run and its scores; nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from igva.errors import UserError
from igva.layer_names import group_label, layer_names
from igva.parts.table import PARTS

EMBEDDED = "embedded:"
# embedded:NAME of a recipe → what is shown as a part's licence.
_PART_OF = {"vision": ("efficientnet",), "text": ("text",), "instruction": ("instruction",), "dinov2": ("dinov2",)}
_USE = """\
```python
from transformers import AutoModelForImageTextToText, AutoProcessor

model = AutoModelForImageTextToText.from_pretrained("{repo}", trust_remote_code=True)
processor = AutoProcessor.from_pretrained("{repo}", trust_remote_code=True)
```

The code that this loads lies beside the weights{but}. Where igva is installed it is not needed:
`igva ask photo.jpg "What is this?" --model {repo}`.
"""


@dataclass
class Known:
    """What a card may tell besides the model's configuration.

    Attributes:
        run: the content of ``run.json``; None where no run is known.
        scores: name of a suite → the content of its ``scores.json``.
        licence: of the weights, an identifier of the hub's; None where nobody said.
        base_models: the hub ids of what it was made of, as far as somebody said.
    """

    run: Mapping[str, Any] | None = None
    scores: Mapping[str, Mapping[str, Any]] | None = None
    licence: str | None = None
    base_models: Sequence[str] = ()


def model_card(model: Any, repo: str, known: Known) -> str:
    """The card as Markdown, with the hub's metadata in front.

    Args:
        model: an ``IgvaForConditionalGeneration``.
        repo: ``owner/name``.
    """
    sections = [
        f"---\n{_metadata(known).to_yaml()}\n---",
        f"# {repo.partition('/')[2]}",
        _what(model),
        "## Use\n\n" + _use(model, repo),
        "## Training\n\n" + (_training(known.run) if known.run else "How it was trained is not recorded here."),
        "## Scores\n\n" + (_scores(known.scores) if known.scores else "None are recorded here."),
        "## Licences\n\n" + _licences(known),
    ]
    return "\n\n".join(sections) + "\n"


def read_known(run: Path | None, scores: Sequence[Path], licence: str | None, base_models: Sequence[str]) -> Known:
    """Read what the card tells, and see that it can be told.

    Args:
        run: a folder with ``run.json``, or None.
        scores: folders that ``igva eval`` wrote.

    Raises:
        UserError: a file is missing or damaged, two folders have one name, or one is that of a blind control.
    """
    names = [folder.resolve().name for folder in scores]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"two folders of scores are called {twice[0]}, which is what the card calls them: rename one")
    known = Known(
        run=_read(run / "run.json", "a run's output folder", _training) if run else None,
        scores={
            name: _read(folder / "scores.json", "what `igva eval --out` wrote", lambda content: _scores({"": content}))
            for name, folder in zip(names, scores, strict=True)
        },
        licence=licence.lower() if licence else None,
        base_models=tuple(base_models),
    )
    for name, found in (known.scores or {}).items():
        if found.get("settings", {}).get("zero_images"):
            raise UserError(
                f"{name} are the scores of a blind control (--zero-images), not of the model: leave them out"
            )
    return known


def _read(path: Path, what: str, tell: Callable[[Any], str]) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        tell(content)
    except OSError as error:
        raise UserError(f"there is no {path}: name {what}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged: name {what}") from error
    return content


def _use(model: Any, repo: str) -> str:
    package = type(model.model.fusion).__module__.partition(".")[0]
    foreign = package not in ("igva", "transformers_modules")
    but = f", but for its fusion's, which is the package `{package}`'s and has to be installed" if foreign else ""
    return _USE.format(repo=repo, but=but).strip()


def _metadata(known: Known) -> ModelCardData:
    return ModelCardData(
        library_name="transformers",
        pipeline_tag="image-text-to-text",
        license=known.licence,
        base_model=list(known.base_models) or None,
        tags=["igva", "multi-layer-vision-features"],
    )


def _recipe_parts(run: Mapping[str, Any] | None) -> dict[str, str]:
    """What the recipe says of each part: ``vision``, ``text``, ``instruction`` or ``retrofit`` → its source."""
    settings = (run or {}).get("recipe", {}).get("model", {})
    parts = {}
    for name in ("retrofit", "vision", "text", "instruction"):
        sources = settings.get(name) or []
        for number, source in enumerate([sources] if isinstance(sources, (str, dict)) else sources, start=1):
            said = source.get("source") if isinstance(source, dict) else source
            parts[name if number == 1 else f"{name} {number}"] = public_name(str(said))
    return parts


def public_name(source: str) -> str:
    """A source as strangers may read it: of a path that can lead anywhere the last part alone."""
    said, sign, value = source.rpartition("=")  # a setting
    parts = value.replace("\\", "/").split("/")
    private = len(parts) > 2 or parts[0] in ("", ".", "..", "~") or ":" in parts[0][1:2]
    return said + sign + (next((part for part in reversed(parts) if part), "") if private else value)


def _what(model: Any) -> str:
    config, fusion = model.config, model.model.fusion
    vision, text, encoder = config.vision, config.text_config, config.instruction_config
    names = layer_names(config)
    rows = [
        ("fusion", f"`{config.fusion}`: {fusion.summary} ({fusion.source})"),
        ("layer groups", "; ".join(group_label(group, names) for group in fusion.layer_groups) or "none"),
        (
            "vision tower",
            f"{vision.model_type}, {vision.num_hidden_layers} layers, {vision.hidden_size} wide, "
            f"{config.input_size} px, {fusion.num_tokens} visual tokens",
        ),
        ("language model", f"{text.model_type}, {text.num_hidden_layers} layers, {text.hidden_size} wide"),
        ("sentence encoder", f"{encoder.model_type}, {encoder.hidden_size} wide" if encoder else "none"),
        ("parameters", f"{sum(p.numel() for p in model.parameters()):,}"),
    ]
    told = "A vision-language model that reads several layers of its vision encoder"
    told += ", weighed by the question." if fusion.needs_instruction else "."
    return f"{told} Made with igva.\n\n" + _table(("", ""), rows)


def _training(run: Mapping[str, Any]) -> str:
    recipe, figures = run["recipe"], run.get("figures", {})
    optim, data = recipe.get("optim", {}), dict(run.get("data", {}))
    hashes = data.pop("sha256", {})
    rows = [
        ("recipe", f"`{public_name(run.get('recipe_name') or 'a file')}`, stage {recipe.get('stage')}"),
        *((name, f"`{source}`") for name, source in _recipe_parts(run).items()),
        ("trained parts", ", ".join(run.get("trained", []))),
        *((f"taken over: {what}", f"`{public_name(source)}`") for what, source in run.get("inherited", {}).items()),
        ("data", ", ".join(f"{key} {value:,}" for key, value in data.items() if type(value) is int)),
        *(
            (f"`{public_name(source)}`", f"sha256 `{digest}`" if digest else "read")
            for source, digest in hashes.items()
        ),
        *((key.replace("_", " "), f"{value:,}") for key, value in figures.items() if type(value) in (int, float)),
        ("samples per step", str(optim.get("batch_size", ""))),
        ("learning rates", ", ".join(f"{part} {rate:g}" for part, rate in run.get("learning_rates", {}).items())),
        ("precision", "; ".join(f"{k} {v}" for k, v in run.get("precision", {}).items())),
        ("hardware", ", ".join(f"{k} {v}" for k, v in run.get("hardware", {}).items())),
        ("versions", ", ".join(f"{k} {v}" for k, v in run.get("versions", {}).items() if v)),
        ("changed settings", " ".join(f"`{public_name(setting)}`" for setting in _changed(run))),
    ]
    return _table(("", ""), [(name, value) for name, value in rows if value])


def _changed(run: Mapping[str, Any]) -> list[str]:
    return [setting for setting in run.get("overrides", []) if not setting.startswith("output=")]


def _scores(scores: Mapping[str, Mapping[str, Any]]) -> str:
    rows = []
    for suite, found in scores.items():
        rows.append(
            (suite, "all", _number(found["mean"]), _interval(found), _number(found.get("chance")), found["questions"])
        )
        for name, entry in found.get("categories", {}).items():
            numbers = (_number(entry["accuracy"]), _interval(entry), _number(entry.get("chance")), entry["questions"])
            rows.append((suite, name, *numbers))
    head = ("suite", "category", "accuracy, %", "95 % interval", "chance", "questions")
    return _table(head, rows) + "\n\nScored with `igva eval`."


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _interval(entry: Mapping[str, Any]) -> str:
    low, high = entry.get("interval") or (None, None)
    return "" if low is None else f"{low:.1f}–{high:.1f}"


def _licences(known: Known) -> str:
    lines = [
        f"Of these weights: {known.licence}." if known.licence else "Nobody has said under which these weights are."
    ]
    for source in _recipe_parts(known.run).values():
        for name in _PART_OF.get(source.removeprefix(EMBEDDED), ()) if source.startswith(EMBEDDED) else ():
            lines.append(f"- {PARTS[name].description}: {PARTS[name].licence}")
    if known.base_models:
        lines.append("- " + ", ".join(f"`{base}`" for base in known.base_models) + ": theirs, see there.")
    return "\n".join(lines)


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
