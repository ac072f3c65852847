"""A request's pictures and instruction → what vLLM caches, schedules and hands to the model.

Letters: ``I`` images of the request, ``T`` user turns, ``S`` tokens of a turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from transformers import BatchFeature
from vllm.multimodal.inputs import MultiModalFieldConfig
from vllm.multimodal.parse import ImageProcessorItems
from vllm.multimodal.processing import (
    BaseDummyInputsBuilder,
    BaseMultiModalProcessor,
    BaseProcessingInfo,
    PromptReplacement,
)

from igva.model.processing_igva import IgvaProcessor

FIELDS = ("pixel_values", "instruction_input_ids", "instruction_attention_mask")


class IgvaProcessingInfo(BaseProcessingInfo):
    """What vLLM plans with: pictures only, as many as one likes, each of the same number of tokens."""

    def get_hf_processor(self, **kwargs: object) -> IgvaProcessor:
        """The checkpoint's processor; a request's options are none of its constructor's."""
        processor: IgvaProcessor = self.ctx.get_hf_processor(IgvaProcessor)
        return processor

    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        return {"image": None}

    def get_mm_max_tokens_per_item(self, seq_len: int, mm_counts: Mapping[str, int]) -> Mapping[str, int]:
        return {"image": self.get_hf_processor().num_image_tokens}


class IgvaDummyInputs(BaseDummyInputsBuilder[IgvaProcessingInfo]):
    """The request vLLM measures memory with: black pictures and no question."""

    def get_dummy_text(self, mm_counts: Mapping[str, int]) -> str:
        return self.info.get_hf_processor().image_token * mm_counts.get("image", 0)

    def get_dummy_mm_data(self, seq_len: int, mm_counts: Mapping[str, int], mm_options: Mapping[str, Any]) -> Any:
        side = self.info.get_hf_config().input_size
        count = mm_counts.get("image", 0)
        overrides = mm_options.get("image")
        return {"image": self._get_dummy_images(width=side, height=side, num_images=count, overrides=overrides)}


class IgvaMultiModalProcessor(BaseMultiModalProcessor[IgvaProcessingInfo]):
    """Puts the instruction's tokens where vLLM hashes them, and both into tensors.

    vLLM recognises a picture it has seen by a hash of the picture and of the request's processor options, and then
    reuses what was computed from it: the processed picture, the image features, the prefix of the prompt. igva's
    image features depend on the question too, so the instruction's tokens become such an option.
    """

    def apply(self, inputs: Any, timing_ctx: Any) -> Any:
        """vLLM's way into this class.

        Args:
            inputs: its ``hf_processor_mm_kwargs`` may hold ``instructions``: the user turns, a string or a list.
                ``IgvaRenderer`` puts them there for a chat. Without them the prompt's own text is the instruction,
                as in ``IgvaProcessor.__call__``.

        Raises:
            ValueError: another processor option.
        """
        options = dict(inputs.hf_processor_mm_kwargs)
        turns = options.pop("instructions", None)
        if options:
            raise ValueError(f"igva's processor takes no option {sorted(options)[0]!r}; it takes 'instructions'")
        processor = self.info.get_hf_processor()
        rows = {}
        if processor.use_instructions:
            if turns is None:
                turns = [processor.prompt_instruction(processor.tokenizer.decode(inputs.prompt))]
            rows = processor.encode_instructions([[turns] if isinstance(turns, str) else list(turns)])
        return super().apply(replace(inputs, hf_processor_mm_kwargs=rows), timing_ctx)

    def _apply_hf_processor_main(self, mm_items: Any, hf_kwargs: Mapping[str, Any]) -> BatchFeature:
        """Pictures that are in no cache yet, and the instruction once for each: ``FIELDS``, one row per picture."""
        items = mm_items.get("image")
        if not items:
            return BatchFeature()
        if not isinstance(items, ImageProcessorItems):
            raise ValueError("igva takes pictures, not embeddings of them: those depend on the question")
        pictures = [items.get(i) for i in range(len(items))]
        data = {"pixel_values": self.info.get_hf_processor().prepare_images(pictures)}
        for name, rows in hf_kwargs.items():  # (1, T, S) -> (I, T, S)
            data[name] = torch.tensor(rows).expand(len(pictures), -1, -1)
        return BatchFeature(data)

    def _get_mm_fields_config(self, hf_inputs: Any, hf_processor_mm_kwargs: Any) -> Mapping[str, MultiModalFieldConfig]:
        return {name: MultiModalFieldConfig.batched("image") for name in FIELDS if name in hf_inputs}

    def _get_prompt_updates(
        self, mm_items: Any, hf_processor_mm_kwargs: Any, out_mm_kwargs: Any
    ) -> Sequence[PromptReplacement]:
        processor = self.info.get_hf_processor()
        token = processor.image_token_id
        return [PromptReplacement("image", target=[token], replacement=[token] * processor.num_image_tokens)]
