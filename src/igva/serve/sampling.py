"""The next token of one answer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.generation.logits_process import TemperatureLogitsWarper, TopPLogitsWarper

from igva.answering import COLDEST


@dataclass(frozen=True)
class Sampling:
    """How an answer is drawn, and where it ends.

    Attributes:
        min_new_tokens: the model cannot end its answer before.
        temperature: 0 takes the likeliest token every time, and so does whatever is nearer to it than ``COLDEST``.
        seed: the same seed, prompt and settings give the same answer, whatever else the server is doing.
        stops: the answer ends before the first of these.
        top_logprobs: None: no log probabilities; 0: those of the tokens taken.
    """

    max_new_tokens: int = 64
    min_new_tokens: int = 0
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stops: tuple[str, ...] = ()
    top_logprobs: int | None = None


class Sampler:
    """Draws the tokens of one answer; each answer has its own stream of random numbers."""

    def __init__(self, sampling: Sampling, device: torch.device):
        self.sampling = sampling
        self.generator = torch.Generator(device)
        if sampling.seed is None:
            self.generator.seed()
        else:
            self.generator.manual_seed(sampling.seed)
        self.warpers: list[Any] = []
        if sampling.temperature >= COLDEST:
            self.warpers.append(TemperatureLogitsWarper(sampling.temperature))
            if sampling.top_p < 1:
                self.warpers.append(TopPLogitsWarper(sampling.top_p))

    def pick(self, logits: Tensor, highest: float, likeliest: int) -> int:
        """Logits ``(V,)``, the highest of them and whose it is → a token.

        Raises:
            ValueError: the logits are not numbers.
        """
        if math.isnan(highest):
            raise ValueError("the model's logits are not numbers")
        if not self.warpers:
            return likeliest
        scores = (logits.float() - highest)[None]  # 0 at most, however large they were
        for warper in self.warpers:
            scores = warper(None, scores)
        return int(torch.multinomial(scores.softmax(dim=-1)[0], 1, generator=self.generator))

    def log_probabilities(self, logits: Tensor, token: int) -> tuple[float, list[tuple[int, float]]] | None:
        """The token's, and the likeliest tokens with theirs, before temperature and ``top_p``; None if not wanted."""
        count = self.sampling.top_logprobs
        if count is None:
            return None
        log = logits.float().log_softmax(dim=-1)
        best = log.topk(count) if count else None
        pairs = [] if best is None else list(zip(best.indices.tolist(), best.values.tolist(), strict=True))
        return float(log[token]), pairs
