"""Attention over packed rows, one sample at a time, where flash attention is not to be had.

Over a packed row ``sdpa`` computes every pair of tokens and masks those of different samples: a row of eight samples
costs eight times what the samples cost. Cut at their bounds, each is a plain causal attention without a mask.

Letters: ``R`` rows, ``A`` heads, ``S`` tokens of a row, ``D`` width of a head.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

PACKED_SDPA = "igva_packed_sdpa"


def packed_sdpa(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    cu_seq_lens_q: Tensor | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """As transformers' ``sdpa``; with the samples' bounds, each sample by itself.

    Args:
        query, key, value: ``(R, A, S, D)``.
        attention_mask: read where there are no bounds, or where a window is part of the mask.
        cu_seq_lens_q: where each sample begins in the flattened batch, and the end; none crosses rows.

    Returns:
        ``(R, S, A, D)`` and None.
    """
    if cu_seq_lens_q is None or sliding_window is not None:
        output, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, sliding_window=sliding_window, **kwargs
        )
        return output, None
    rows, _, width, _ = query.shape
    samples = []
    for start, end in pairwise(cu_seq_lens_q.tolist()):
        row, first = divmod(start, width)
        parts = (states[row : row + 1, :, first : first + end - start] for states in (query, key, value))
        samples.append(sdpa_attention_forward(module, *parts, attention_mask=None, **kwargs)[0])
    together = torch.cat(samples, dim=1)  # (1, R * S, A, D)
    return together.view(rows, width, *together.shape[2:]), None


def use_packed_attention(language_model: PreTrainedModel) -> None:
    """Switch a language model that attends by ``sdpa`` over; any other implementation is left as it is."""
    if language_model.config._attn_implementation == "sdpa":
        language_model.set_attn_implementation(PACKED_SDPA)


AttentionInterface.register(PACKED_SDPA, packed_sdpa)
AttentionMaskInterface.register(PACKED_SDPA, sdpa_mask)
