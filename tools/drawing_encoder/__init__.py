"""The parts of ``tools/train_drawing_encoder.py``."""
