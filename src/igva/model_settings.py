"""An igva model's configuration from those of its parts: the same for a model that is built, planned or retrofitted."""

from __future__ import annotations

from typing import Any

from transformers import LlavaConfig, PreTrainedConfig

from igva.errors import UserError, first_line
from igva.model.configuration_igva import IgvaConfig


def config_of_parts(
    vision: PreTrainedConfig,
    text: PreTrainedConfig,
    instruction: PreTrainedConfig | None,
    *,
    image_token_id: int,
    **fields: Any,
) -> IgvaConfig:
    """Of a vision tower, a language model and a sentence encoder.

    Args:
        vision: the tower's; of a text-and-vision checkpoint its vision half is taken.
        text: with room for ``image_token_id`` in its vocabulary.
        instruction: None where instruction vectors come from outside, or are not read.
        fields: of ``IgvaConfig``: the fusion, how the encoder pools, …

    Raises:
        UserError: the parts and fields do not fit together.
    """
    try:
        return IgvaConfig(
            vision_config=getattr(vision, "vision_config", vision),
            text_config=text,
            instruction_config=instruction,
            image_token_id=image_token_id,
            **fields,
        )
    except ValueError as error:
        raise UserError(first_line(error)) from error


def config_of_llava(
    llava: LlavaConfig,
    vision: PreTrainedConfig,
    instruction: PreTrainedConfig | None,
    *,
    instruction_dim: int,
    fusion_kwargs: dict[str, Any],
    **fields: Any,
) -> IgvaConfig:
    """Of a LLaVA checkpoint that becomes an igva model.

    Args:
        vision: LLaVA's own tower, or one that holds it.
        instruction_dim: width of the instruction vectors.
        fields: of ``IgvaConfig``: how the encoder pools.

    Raises:
        UserError: they do not fit together.
    """
    return config_of_parts(
        vision,
        llava.text_config,
        instruction,
        image_token_id=llava.image_token_id,
        instruction_dim=instruction_dim,
        fusion="igva",
        fusion_kwargs=fusion_kwargs,
        projector_hidden_act=llava.projector_hidden_act,
        projector_bias=llava.multimodal_projector_bias,
        tie_word_embeddings=llava.tie_word_embeddings,
        **fields,
    )
