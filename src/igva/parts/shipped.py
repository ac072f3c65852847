"""What ships beside the code for the embedded default."""

from __future__ import annotations

from pathlib import Path

WEIGHTS = Path(__file__).parent.parent / "weights"
# Fixed matrices of its vision tower: the principal directions of the classifier's rows, which bring its head to the
# tower's width, and of the classes' sentence vectors. They ship because a decomposition has other signs on other
# machines, and what is trained reads channels. ``tools/tower_matrices.py`` made them.
TOWER = WEIGHTS / "tiny_tower.safetensors"
# What its encoder for drawings differs by from the published one, and the names of its classes: things, words, colours.
# ``tools/train_drawing_encoder.py`` made them; what they were trained on stands in the model card.
DRAWINGS = WEIGHTS / "tiny_drawings.safetensors"
DRAWING_CLASSES = WEIGHTS / "tiny_drawings.json"
