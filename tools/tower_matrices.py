"""Make the matrices that ``embedded:vision`` is put together with, and write them beside tiny's weights.

    .venv/bin/python tools/tower_matrices.py

Other matrices make another tower: whatever was trained on the one before has to be trained anew.
"""

import torch
from safetensors.torch import save_file
from torch import Tensor

from igva.imagenet.classes import classes
from igva.parts.cache import fetch_parts
from igva.parts.efficientnet import read_classifier
from igva.parts.shipped import TOWER
from igva.parts.tower import CONSTANTS, VISION_PARTS, WIDTH, sentence_vectors


def principal_rows(matrix: Tensor, count: int) -> Tensor:
    """The ``count`` directions along which the rows of a matrix ``(n, m)`` are longest, orthonormal: ``(count, m)``."""
    return torch.linalg.svd(matrix, full_matrices=False).Vh[:count].contiguous()


@torch.no_grad()
def main() -> None:
    parts = fetch_parts(VISION_PARTS)
    weight, _ = read_classifier(parts["efficientnet"])
    sentences = sentence_vectors(parts["instruction"], [entry.text for entry in classes()])
    words = principal_rows(sentences - sentences.mean(dim=0), sentences.shape[1] - CONSTANTS)
    save_file({"head": principal_rows(weight, WIDTH), "words": words}, TOWER)
    TOWER.chmod(0o644)  # safetensors writes for the owner alone
    print(f"{TOWER}: {TOWER.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
