"""The model room: flat, and importing torch and transformers only, so that it also works as Hub remote code."""

# First of all, so that what registers the model once transformers is there finds no file of this room half loaded.
import transformers  # noqa: F401
