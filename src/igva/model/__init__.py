"""The model room: flat, and importing torch and transformers only, so that it also works as Hub remote code."""
