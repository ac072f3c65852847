"""From the tokens of the user turns to one instruction vector per image, with any BERT-like sentence encoder.

Letters: ``I`` images, ``T`` user turns, ``S`` tokens of a turn, ``E`` instruction width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def pool_tokens(states: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """One vector per sentence: states ``(R, S, E)``, mask ``(R, S)`` → ``(R, E)``.

    ``mean`` is sentence-transformers' mean over unmasked tokens, ``cls`` the first token.
    """
    if pooling == "cls":
        return states[:, 0]
    weights = mask[..., None].to(states.dtype)
    return (states * weights).sum(dim=1) / weights.sum(dim=1).clamp_min(1e-9)


def encode_instructions(
    encoder: nn.Module, input_ids: Tensor, attention_mask: Tensor, *, pooling: str, normalize: bool
) -> Tensor:
    """The mean over each image's turns of their sentence vectors, not normalised again: ``(I, E)``.

    Args:
        input_ids: ``(I, T, S)``; a turn whose mask is all zero does not exist (padding).
        attention_mask: ``(I, T, S)``.

    Returns:
        ``(I, E)``; a row of zeros where an image has no turn at all.
    """
    images, turns, length = input_ids.shape
    real = attention_mask.any(dim=-1)  # (I, T)
    flat_ids, flat_mask = input_ids.view(-1, length), attention_mask.view(-1, length)
    # A fully masked row would make softmax undefined in some attention kernels: let it see its first token;
    # its vector is dropped below.
    visible = flat_mask.clone()
    visible[:, 0] = torch.where(real.view(-1), visible[:, 0], torch.ones_like(visible[:, 0]))
    output: Any = encoder(input_ids=flat_ids, attention_mask=visible)
    vectors = pool_tokens(output.last_hidden_state, visible, pooling)
    if normalize:
        vectors = nn.functional.normalize(vectors, dim=-1)
    vectors = vectors.view(images, turns, -1) * real[..., None].to(vectors.dtype)
    return vectors.sum(dim=1) / real.sum(dim=1, keepdim=True).clamp_min(1).to(vectors.dtype)
