"""The published EfficientNet-Lite0 classifier → an ``EfficientNetLiteModel`` folder, its last layer beside it."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from igva.model.efficientnet_lite import EfficientNetLiteConfig, EfficientNetLiteModel

CLASSIFIER_FILE = "classifier.safetensors"  # weight (V, C) and bias (V,): what a words layer is made with
MEAN, STD = 127 / 255, 128 / 255  # of pixels from 0 to 1: the published code takes (x - 127) / 128 of 0 to 255

_BLOCK = re.compile(r"_blocks\.(\d+)\.")
# Their names → ours; norms are numbered by their place, in a block and outside of one.
_IN_BLOCK = {
    "_expand_conv.": "expand.conv.",
    "_bn0.": "expand.norm.",
    "_depthwise_conv.": "depthwise.conv.",
    "_bn1.": "depthwise.norm.",
    "_project_conv.": "project.conv.",
    "_bn2.": "project.norm.",
}
_OUTSIDE = {"_conv_stem.": "stem.conv.", "_bn0.": "stem.norm.", "_conv_head.": "head.conv.", "_bn1.": "head.norm."}


def efficientnet_state_dict(published: dict[str, Tensor], config: EfficientNetLiteConfig) -> dict[str, Tensor]:
    """Tensors of an ``EfficientNetLiteModel``; the classifier (``_fc``) is left out."""
    prefixes = [
        f"stages.{stage}.{block}." for stage, (blocks, *_) in enumerate(config.stages) for block in range(blocks)
    ]
    state = {}
    for name, tensor in published.items():
        if name.startswith("_fc."):
            continue
        block = _BLOCK.match(name)
        prefix, names = (prefixes[int(block[1])], _IN_BLOCK) if block else ("", _OUTSIDE)
        rest = name[block.end() :] if block else name
        theirs = next(key for key in names if rest.startswith(key))
        state[prefix + names[theirs] + rest.removeprefix(theirs)] = tensor.contiguous()
    return state


def convert_state(file: Path, folder: Path) -> None:
    """Write the model and its classifier; no key may be missing or left over."""
    published = torch.load(file, weights_only=True, map_location="cpu")
    config = EfficientNetLiteConfig()
    with torch.device("meta"):
        model = EfficientNetLiteModel(config)
    model.load_state_dict(efficientnet_state_dict(published, config), assign=True)
    model.save_pretrained(folder)
    classifier = {name: published[f"_fc.{name}"].contiguous() for name in ("weight", "bias")}
    save_file(classifier, folder / CLASSIFIER_FILE)


def read_classifier(folder: Path) -> tuple[Tensor, Tensor]:
    """Weight ``(V, C)`` and bias ``(V,)`` of the classifier."""
    tensors = load_file(folder / CLASSIFIER_FILE)
    return tensors["weight"], tensors["bias"]
