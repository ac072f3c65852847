"""The only place that tells transformers' Auto classes about igva."""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
)

from igva.model.configuration_igva import IgvaConfig
from igva.model.modeling_igva import IgvaForConditionalGeneration, IgvaModel
from igva.model.processing_igva import IgvaProcessor


def register() -> None:
    """Register config, models and processor; calling it again changes nothing."""
    AutoConfig.register(IgvaConfig.model_type, IgvaConfig, exist_ok=True)
    AutoModel.register(IgvaConfig, IgvaModel, exist_ok=True)
    AutoModelForImageTextToText.register(IgvaConfig, IgvaForConditionalGeneration, exist_ok=True)
    AutoModelForCausalLM.register(IgvaConfig, IgvaForConditionalGeneration, exist_ok=True)
    AutoProcessor.register(IgvaConfig, IgvaProcessor, exist_ok=True)
