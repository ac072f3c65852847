"""Where each visual token lies in the picture, added to what it shows."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from transformers import initialization

START = 0.07  # amplitude at the start: words of small language models have a root mean square of about 0.1


class VisualPositions(nn.Module):
    """A learnt vector per visual token, added behind the projector.

    A language model that reads the tokens row by row can work out row and column only from how far they are from
    each other; a short training does not get there. The vectors start as sines and cosines of row and column (those
    of MAE, arXiv 2111.06377), or of the place in the sequence where the tokens form no square.

    Args:
        count: ``N'``, visual tokens of an image.
        width: ``H``, of the language model.
    """

    def __init__(self, count: int, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(count, width))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        count, width = self.weight.shape
        side = math.isqrt(count)
        places = torch.arange(count, device="cpu")  # also where the weight itself is made without memory
        if side * side == count:
            halves = [_waves(places // side, width // 2), _waves(places % side, width - width // 2)]
            waves = torch.cat(halves, dim=1)
        else:
            waves = _waves(places, width)
        initialization.copy_(self.weight, START * waves)  # transformers' own: leaves alone what came from a file

    def forward(self, tokens: Tensor) -> Tensor:
        """``(I, N', H)`` → ``(I, N', H)``."""
        return tokens + self.weight


def _waves(places: Tensor, width: int) -> Tensor:
    """Sines and cosines of ``places (n,)``, of wavelengths from 2π to 2π · 10,000: ``(n, width)``."""
    frequencies = torch.exp(-math.log(10_000) * torch.linspace(0, 1, (width + 1) // 2, device=places.device))
    angles = places[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)[:, :width]
