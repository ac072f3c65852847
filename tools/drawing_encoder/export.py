"""The tuned encoder as a small file: its difference to the published weights, in 8 bits."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from igva.eight_bits import to_int8
from igva.model.efficientnet_lite import EfficientNetLiteModel
from igva.parts.shipped import DRAWING_CLASSES, DRAWINGS


@torch.no_grad()
def export(published: EfficientNetLiteModel, student: nn.Module, names: list[str], folder: Path) -> None:
    """Write the weights' differences, the classifier, and the names of its classes into ``folder``."""
    before, after = published.state_dict(), student.encoder.state_dict()
    moved = {
        name: (after[name] - tensor).flatten(1) if tensor.dim() > 2 else after[name] - tensor
        for name, tensor in before.items()
        if tensor.is_floating_point()
    }
    small = to_int8(moved | {f"words.classifier.{n}": t for n, t in student.classifier.state_dict().items()})
    for name in before:
        if name.endswith("running_var") and bool((before[name] + small[name].float() < 0).any()):
            raise SystemExit(f"{name}: rounded, a variance is below 0")
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / DRAWINGS.name
    save_file(small, file, metadata={"format": "pt"})
    file.chmod(0o644)  # safetensors writes for the owner alone
    (folder / DRAWING_CLASSES.name).write_text(json.dumps(names) + "\n")
    print(f"{file}: {file.stat().st_size / 1e6:.1f} MB, {len(names)} classes")
