"""Entry point of vLLM (group ``vllm.general_plugins``): tells it what an igva checkpoint is."""

from __future__ import annotations

from typing import Any

from vllm.model_executor.models.config import MODELS_CONFIG_MAP, VerifyAndUpdateConfig
from vllm.model_executor.models.registry import ModelRegistry
from vllm.renderers.registry import RENDERER_REGISTRY
from vllm.tokenizers.registry import TokenizerRegistry

from igva.registration import register as register_auto_classes

ARCHITECTURE = "IgvaForConditionalGeneration"  # what config.json says
MODE = "igva"  # vLLM's "tokenizer mode": a name for how chats become tokens


class IgvaServingConfig(VerifyAndUpdateConfig):
    """What vLLM does not know by itself about an igva checkpoint."""

    @staticmethod
    def verify_and_update_model_config(model_config: Any) -> None:
        """Chats are rendered by ``IgvaRenderer`` unless somebody asked for another way, which the model refuses."""
        if model_config.tokenizer_mode == "auto":
            model_config.tokenizer_mode = MODE


def register() -> None:
    """Register the model, and how its chats are rendered; calling it again changes nothing.

    vLLM calls it in each of its processes. Names, not classes: nothing that starts CUDA may be imported here.
    """
    register_auto_classes()
    if ARCHITECTURE in ModelRegistry.get_supported_archs():
        return
    ModelRegistry.register_model(ARCHITECTURE, "igva.serve.vllm_model:IgvaForConditionalGeneration")
    MODELS_CONFIG_MAP[ARCHITECTURE] = IgvaServingConfig
    TokenizerRegistry.register(MODE, "vllm.tokenizers.hf", "CachedHfTokenizer")
    RENDERER_REGISTRY.register(MODE, "igva.serve.vllm_renderer", "IgvaRenderer")
