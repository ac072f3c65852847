"""The igva model in vLLM: its language model runs on vLLM's layers and cache, the rest as it is in transformers.

Letters: ``I`` images of several requests, ``T`` user turns, ``S`` tokens of a turn, ``N'`` visual tokens per image,
``H`` language-model width.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from vllm.model_executor.models.transformers import TransformersMultiModalForCausalLM
from vllm.multimodal import MULTIMODAL_REGISTRY

from igva.serve.vllm_plugin import MODE
from igva.serve.vllm_processor import IgvaDummyInputs, IgvaMultiModalProcessor, IgvaProcessingInfo

NO_INJECTIONS = "this fusion adds features inside the language model, which vLLM's Transformers backend cannot do"
INSTRUCTION = ("instruction_input_ids", "instruction_attention_mask")


@MULTIMODAL_REGISTRY.register_processor(IgvaMultiModalProcessor, info=IgvaProcessingInfo, dummy_inputs=IgvaDummyInputs)
class IgvaForConditionalGeneration(TransformersMultiModalForCausalLM):
    """vLLM's Transformers backend around ``IgvaModel``.

    Raises:
        ValueError: chats would not be rendered by ``IgvaRenderer``, the model asks for an instruction but holds no
            encoder for it, or its fusion adds features inside the language model, which the backend cannot.
    """

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        mode = vllm_config.model_config.tokenizer_mode
        if mode != MODE:
            raise ValueError(f"tokenizer mode {mode!r} loses the question on the way to the vision layers: use {MODE}")
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        if self.model.fusion.injects:
            raise ValueError(NO_INJECTIONS)
        if self.model.fusion.needs_instruction and self.model.instruction_encoder is None:
            raise ValueError("this model has no instruction encoder: vLLM has no other way to give it the question")

    def recursive_replace(self) -> None:
        """As in the backend, but in the language model alone.

        The rest stays as the checkpoint's authors wrote it, on every device whole: a fusion may read its layers'
        weights itself (attention does), and a tower is watched while it runs.
        """
        modules = self.model._modules
        whole = dict(modules)
        for name in whole.keys() - {"language_model"}:
            del modules[name]
        super().recursive_replace()
        restored = {**whole, **modules}
        modules.clear()
        modules.update(restored)

    def embed_multimodal(self, **fields: Any) -> list[Tensor]:
        """Pictures of several requests and their instructions → ``(N', H)`` each.

        Args:
            fields: ``pixel_values (I, 3, height, width)``, and ``(I, T, S)`` token ids and mask, or lists where
                the questions differ in length.
        """
        pixels = fields["pixel_values"]
        rows = {name: pad_rows(fields[name]).to(pixels.device) for name in INSTRUCTION if name in fields}
        features = self.model.get_image_features(pixels, **rows)
        if features.injections:  # of a fusion that did not say so
            raise ValueError(NO_INJECTIONS)
        return list(features.pooler_output)

    def compute_logits(self, hidden_states: Tensor) -> Tensor | None:
        """As in the backend, but a picture's placeholder is never an answer."""
        logits: Tensor | None = super().compute_logits(hidden_states)
        if logits is not None:
            logits[..., self.config.image_token_id] = float("-inf")
        return logits


def pad_rows(rows: Tensor | list[Tensor]) -> Tensor:
    """``(T, S)`` of different sizes → ``(I, T, S)``, filled with zeros (masked, where this is the mask)."""
    if isinstance(rows, Tensor):
        return rows
    turns, length = (max(row.shape[axis] for row in rows) for axis in (-2, -1))
    padded = rows[0].new_zeros(len(rows), turns, length)
    for target, row in zip(padded, rows, strict=True):
        target[: row.shape[-2], : row.shape[-1]] = row
    return padded
