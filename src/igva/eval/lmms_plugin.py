"""Entry point of lmms-eval: tells it that a model named ``igva`` exists, without loading torch for that."""

from lmms_eval.models.registry_v2 import ModelManifest


def manifest() -> ModelManifest:
    """``lmms-eval --model igva``: chat requests, whose pictures stand where the task puts them."""
    return ModelManifest(model_id="igva", chat_class_path="igva.eval.lmms_model.Igva")
