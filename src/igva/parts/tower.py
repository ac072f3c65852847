"""The vision tower of the embedded default: EfficientNet-Lite0 as published and tuned on drawings, put together once.

Letters: ``V`` classes, ``C`` channels of the classifier's last map, ``D`` width of the tower.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from igva.files import new_folder, write_errors
from igva.imagenet.classes import classes
from igva.model.instruction_encoder import encode_instructions
from igva.parts.cache import fetch_parts
from igva.parts.convert import DINOV2_PREPROCESSOR
from igva.parts.drawings import drawing_classes, drawing_state
from igva.parts.efficientnet import MEAN, STD, read_classifier
from igva.parts.shipped import DRAWING_CLASSES, DRAWINGS, TOWER
from igva.parts.table import PARTS
from igva.paths import home

VISION_PARTS = ("efficientnet", "instruction")  # what it is made of: the latter gives the classes' words
WIDTH, GRID, IMAGE_SIZE = 384, 8, 256
HEAD, WORDS = 8, 9  # of EfficientNet's layers, the last two
PHOTOGRAPHS_ENCODER, DRAWINGS_ENCODER = "efficientnet", "drawings"  # as published, and tuned
# Which layers the tower has, by readouts (docs/results/tiny-tower.md), which are also why DINOv2 has none in it.
EFFICIENTNET_LAYERS = (3, 5, 6, HEAD, WORDS)
STACKED = {"3": 4, "5": 2}  # the maps of stages 3 and 5 are 32 and 16 places to the side
DRAWING_LAYERS = (5, 7, WORDS)  # of the encoder tuned on drawings; stage 7, for its head would need a matrix of its own
# Channels of the words layer that are the same at every place. A layer norm behind it divides by what all channels
# hold together: next to these, what doubt leaves of the words stays little.
CONSTANTS, CONSTANT = 8, 0.18


def vision_path() -> Path:
    """Where the tower stands, or will: another folder for other parts, classes, settings or matrices."""
    digest = hashlib.sha256()
    for name in VISION_PARTS:
        digest.update(PARTS[name].revision.encode())
    settings = [WIDTH, GRID, IMAGE_SIZE, EFFICIENTNET_LAYERS, DRAWING_LAYERS, STACKED, CONSTANTS, CONSTANT]
    digest.update(repr([settings, classes()]).encode())
    for file in (TOWER, DRAWINGS, DRAWING_CLASSES):
        digest.update(file.read_bytes())
    return home() / "parts" / f"vision-{digest.hexdigest()[:8]}"


def vision_folder() -> Path:
    """The tower as a Hugging Face folder: its parts fetched and put together the first time.

    Raises:
        UserError: as ``fetch_parts``, or the cache cannot be written.
    """
    target = vision_path()
    if not _complete(target):
        parts = fetch_parts(VISION_PARTS)
        with write_errors(target), new_folder(target, _complete) as folder:
            assemble_vision(parts).save_pretrained(folder)
            (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor(), indent=2) + "\n")
    return target


def _complete(folder: Path) -> bool:
    return (folder / "model.safetensors").is_file() and (folder / "preprocessor_config.json").is_file()


def preprocessor() -> dict[str, Any]:
    """Pixels from 0 to 1; each encoder normalises its own. The mean is what pictures are padded with."""
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    return {**DINOV2_PREPROCESSOR, "size": size, "do_normalize": False}


@torch.no_grad()
def assemble_vision(
    parts: dict[str, Path],
    dinov2_layers: Sequence[int] = (),
    efficientnet_layers: Sequence[int] = EFFICIENTNET_LAYERS,
    drawing_layers: Sequence[int] = DRAWING_LAYERS,
) -> Any:
    """The ``EnsembleVisionModel`` of the parts, in float32.

    Args:
        parts: the folders of ``VISION_PARTS``, and of dinov2 where layers of it are asked for.
        dinov2_layers, efficientnet_layers, drawing_layers: other layers than the tower's own, for comparisons.
    """
    from transformers import AutoConfig, AutoModel

    from igva.model.vision_ensemble import EnsembleVisionConfig, EnsembleVisionModel

    efficientnet = AutoConfig.from_pretrained(
        parts["efficientnet"], word_size=WIDTH, image_size=IMAGE_SIZE, trust_remote_code=False
    )
    encoders: list[dict[str, Any]] = []
    if dinov2_layers:
        encoders.append(
            {
                "name": "dinov2",
                "config": AutoConfig.from_pretrained(parts["dinov2"], trust_remote_code=False).to_dict(),
                "layers": list(dinov2_layers),
                "image_size": 224,
                "image_mean": DINOV2_PREPROCESSOR["image_mean"],
                "image_std": DINOV2_PREPROCESSOR["image_std"],
                "patches": 16,
            }
        )
    for name, layers, count in (
        (PHOTOGRAPHS_ENCODER, efficientnet_layers, len(classes())),
        (DRAWINGS_ENCODER, drawing_layers, len(drawing_classes())),
    ):
        if not layers:
            continue
        encoders.append(
            {
                "name": name,
                "config": {**efficientnet.to_dict(), "num_classes": count},
                "layers": list(layers),
                "image_size": IMAGE_SIZE,
                "image_mean": [MEAN] * 3,
                "image_std": [STD] * 3,
                "layer_names": {str(HEAD): "head", str(WORDS): "words"},
                "plain": [WORDS],
                "stack": STACKED,
            }
        )
    matrices = load_file(TOWER)
    config = EnsembleVisionConfig(encoders=encoders, hidden_size=WIDTH, grid=GRID, image_size=IMAGE_SIZE)
    model = EnsembleVisionModel(config)
    loaded: Iterable[Any] = model.encoders
    adapters: Iterable[Any] = model.adapters
    published = AutoModel.from_pretrained(parts["efficientnet"], trust_remote_code=False).state_dict()
    for part, encoder in zip(model.parts, loaded, strict=True):
        if part.name == "dinov2":
            encoder.load_state_dict(AutoModel.from_pretrained(parts["dinov2"], trust_remote_code=False).state_dict())
            continue
        if part.name == DRAWINGS_ENCODER:
            state, texts = drawing_state(published), drawing_classes()
        else:
            weight, bias = read_classifier(parts["efficientnet"])
            state = {**published, "words.classifier.weight": weight, "words.classifier.bias": bias}
            texts = [entry.text for entry in classes()]
        state["words.vectors"] = word_vectors(sentence_vectors(parts["instruction"], texts), matrices["words"])
        encoder.load_state_dict(state)
    for adapter, name in zip(adapters, config.layer_names, strict=True):
        if name == "efficientnet.head":
            adapter.matrix.copy_(matrices["head"])
    return model.eval()


@torch.no_grad()
def sentence_vectors(instruction: Path, texts: Sequence[str]) -> Tensor:
    """The sentence vector of each text, of unit length: ``(V, D)``."""
    from transformers import AutoModel, AutoTokenizer

    encoder = AutoModel.from_pretrained(instruction, dtype=torch.float32, trust_remote_code=False).eval()
    tokens = AutoTokenizer.from_pretrained(instruction, trust_remote_code=False)(
        list(texts), padding=True, return_tensors="pt"
    )
    ids, mask = tokens["input_ids"][:, None], tokens["attention_mask"][:, None]  # (V, 1, S)
    return encode_instructions(encoder, ids, mask, pooling="mean", normalize=True)


def word_vectors(sentences: Tensor, directions: Tensor) -> Tensor:
    """Sentence vectors ``(V, D)`` as rows of a words layer: without their mean, turned, some channels constant.

    Without the mean, which all classes share, the expected vector of a classifier that has no idea is near zero.

    Args:
        directions: orthonormal, ``(D - CONSTANTS, D)``.
    """
    turned = (sentences - sentences.mean(dim=0)) @ directions.T
    signs = torch.tensor([1.0, -1.0]).repeat(CONSTANTS // 2)  # their own mean is zero
    return torch.cat([turned, (CONSTANT * signs).expand(len(sentences), -1)], dim=1)
