"""A small network in a language model's place: given a question, it chooses among answers by what the tokens show.

Letters: ``B`` questions of a batch, ``N'`` visual tokens, ``D'`` their width, ``S`` positions of a question (itself,
then its words), ``E`` sentence-encoder width, ``W`` readout width, ``C`` answers, ``V`` words.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from igva.errors import UserError
from igva.train.feature_cache import InstructionCache

T = TypeVar("T")
MAX_WORDS = 48  # of a question; what is longer is cut
TEMPERATURE = 0.07  # of cosine similarities, where training begins
MATCH = 7  # numbers that say how well and where a word is matched


def token_grid(num_tokens: int) -> Tensor:
    """Column and row of each visual token, -1 to 1: ``(N', 2)``; tokens beyond the largest square lie in the middle."""
    side = math.isqrt(num_tokens)
    line = torch.linspace(-1, 1, side)
    grid = torch.zeros(num_tokens, 2)
    grid[: side * side] = torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1).flatten(0, 1)
    return grid


def match_summary(matches: Tensor, grid: Tensor) -> Tensor:
    """From similarities ``(B, S, N')``: best, typical, mass, column, row and their spreads, ``(B, S, MATCH)``."""
    attention = matches.softmax(dim=-1)
    centre = attention @ grid  # (B, S, 2)
    spread = (attention @ grid.square() - centre.square()).clamp_min(0).add(1e-6).sqrt()
    mass = matches.sigmoid().mean(dim=-1, keepdim=True)
    best, typical = matches.amax(dim=-1, keepdim=True), matches.logsumexp(dim=-1, keepdim=True)
    return torch.cat([best, typical, mass, centre, spread], dim=-1)


def unit(vectors: Tensor) -> Tensor:
    """Each vector at length 1."""
    return nn.functional.normalize(vectors, dim=-1)


class Readout(nn.Module):
    """Finds each word of the question in the picture, lets the words compare notes, and scores every answer.

    Words, answers and (after a warm-up) visual tokens live in one space. A word meets the tokens by similarity, and is
    given how well it is matched, where, and how widely (late interaction); then it attends to the tokens as usual.
    """

    grid: Tensor

    def __init__(
        self,
        *,
        visual_dim: int,
        num_tokens: int,
        text_dim: int,
        num_answers: int,
        width: int = 192,
        blocks: int = 2,
        heads: int = 4,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.visual = nn.Sequential(nn.LayerNorm(visual_dim), nn.Linear(visual_dim, width))
        self.meaning = nn.Linear(text_dim, width)
        self.positions = nn.Parameter(torch.randn(num_tokens, width) * 0.02)
        self.order = nn.Parameter(torch.randn(MAX_WORDS + 1, width) * 0.02)
        self.match = nn.Linear(MATCH, width)
        block = nn.TransformerDecoderLayer(width, heads, 2 * width, dropout, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerDecoder(block, blocks, norm=nn.LayerNorm(width))
        self.pointer = nn.Linear(width, width)
        self.answer_table = nn.Parameter(torch.zeros(num_answers, width))
        self.sharpness = nn.Parameter(torch.full((3,), math.log(1 / TEMPERATURE)))  # of matches, last look, answers
        self.register_buffer("grid", token_grid(num_tokens))

    def forward(self, features: Tensor, words: Tensor, padding: Tensor, answers: Tensor) -> Tensor:
        """``(B, N', D')``, words ``(B, S, E)`` and which are padding, answers ``(C, E)`` → ``(B, C)`` logits."""
        matching, looking, scoring = self.sharpness.exp()
        tokens = self.visual(features)  # (B, N', W)
        meant = self.meaning(words)  # (B, S, W)
        named, asked = unit(tokens), unit(meant)
        matches = matching * torch.einsum("bsw,bnw->bsn", asked, named)
        states = math.sqrt(asked.shape[-1]) * asked + self.order[: words.shape[1]]
        states = self.blocks(
            states + self.match(match_summary(matches, self.grid)),
            math.sqrt(asked.shape[-1]) * named + self.positions,
            tgt_key_padding_mask=padding,
        )
        kept = (~padding)[..., None].to(states.dtype)
        gathered = (states * kept).sum(dim=1) / kept.sum(dim=1)  # (B, W)
        # One last look, whose result is handed on as it is: a token that was named in the warm-up names the answer.
        looked = (looking * torch.einsum("bw,bnw->bn", unit(self.pointer(gathered)), named)).softmax(dim=-1)
        seen = unit(gathered) + torch.einsum("bn,bnw->bw", looked, named)
        out: Tensor = scoring * unit(seen) @ unit(self.meaning(answers) + self.answer_table).T
        return out

    def name_tokens(self, features: Tensor, words: Tensor) -> Tensor:
        """``(B, N, D')`` and the vectors of words ``(V, E)`` → how well each word names each token, ``(B, N, V)``."""
        return unit(self.visual(features)) @ unit(self.meaning(words)).T / TEMPERATURE


class SentenceFeatures:
    """The vector of every question, of each of its words, and of every answer, by the model's instruction encoder."""

    def __init__(self, model: Any, processor: Any):
        if model.model.instruction_encoder is None:
            raise UserError("the model has no sentence encoder to read questions with: name one with --instruction")
        self._cache = InstructionCache(model, processor)

    @property
    def width(self) -> int:
        """``E``."""
        return self._cache.width

    def fill(self, questions: Iterable[str], texts: Iterable[str]) -> None:
        """Encode questions with their words, and other texts, where that is not done yet."""
        questions = list(questions)
        self._cache.fill([*questions, *(word for question in questions for word in words(question)), *texts])

    def vectors(self, texts: Sequence[str]) -> Tensor:
        """``(n, E)``, as a fusion gets them."""
        return torch.stack([self._cache([text]) for text in texts])

    def states(self, questions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """The question as a whole and then word by word: ``(n, S, E)``, and which positions are padding, ``(n, S)``."""
        rows = [self.vectors([question, *words(question)]) for question in questions]
        lengths = torch.tensor([len(row) for row in rows])
        padded = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        return padded, torch.arange(padded.shape[1])[None] >= lengths[:, None]


def words(question: str) -> list[str]:
    """The words of a question in lower case, at most ``MAX_WORDS``."""
    return re.findall(r"[\w'-]+", question.lower())[:MAX_WORDS]


def endless_batches(things: Sequence[T], batch_size: int, seed: int) -> Iterator[list[T]]:
    """Endless passes, each in an order of its own; the same for one seed."""
    generator = torch.Generator().manual_seed(seed)
    size = min(batch_size, len(things))
    while True:
        order = torch.randperm(len(things), generator=generator).tolist()
        for start in range(0, len(order) - size + 1, size):
            yield [things[index] for index in order[start : start + size]]
