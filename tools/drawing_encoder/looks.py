"""Drawings as other hands would have made them: a batch at once, on the device that trains.

Letters: ``B`` drawings, ``S`` their side. Colours are ``(B, 3, S, S)``, inks and coverage ``(B, 1, S, S)``, 0 to 1.
"""

import math

import torch
from torch import Tensor, nn

# How often its own look, another hue, grey, outlined, sketched, inked, posterised, a silhouette, a negative.
SHARES = (0.34, 0.15, 0.08, 0.13, 0.09, 0.09, 0.05, 0.04, 0.03)


def uniform(count: int, low: float, high: float, device: torch.device) -> Tensor:
    """``(count, 1, 1, 1)``."""
    return low + (high - low) * torch.rand(count, 1, 1, 1, device=device)


def redrawn(rgba: Tensor, mono: Tensor) -> tuple[Tensor, Tensor]:
    """A look for each, by chance: ``(B, 4, S, S)`` from 0 to 1 → colours and coverage.

    Args:
        mono: ``(B,)``, those in one black ink, which get another one.
    """
    count, device = len(rgba), rgba.device
    color, cover = rgba[:, :3], rgba[:, 3:]
    ink = _ink(count, device)
    color = torch.where(mono[:, None, None, None], ink.expand_as(color), color)
    look = torch.multinomial(torch.tensor(SHARES, device=device), count, replacement=True)
    look = torch.where(mono & ((look == 1) | (look == 2) | (look == 5) | (look == 6)), 0, look)
    grey = (color * torch.tensor([0.3, 0.59, 0.11], device=device).view(1, 3, 1, 1)).sum(1, keepdim=True)
    white = grey * cover + (1 - cover)
    edges = torch.maximum(_edges(white), _edges(cover))
    line = ((edges - 0.1) * uniform(count, 2.0, 3.5, device)).clamp(0, 1)
    shaken = torch.maximum(wobbled(line), wobbled(line))
    paper = torch.where(torch.rand(count, 1, 1, 1, device=device) < 0.6, 1.0, uniform(count, 0.85, 1.0, device))
    bare = torch.rand(count, 1, 1, 1, device=device) < 0.4  # lines alone, the ground shows through
    dark = uniform(count, 0.0, 0.3, device)

    def on_paper(strokes: Tensor) -> tuple[Tensor, Tensor]:
        inside = torch.where(bare, strokes, torch.maximum(cover, strokes))
        return dark * strokes + torch.where(bare, dark, paper) * (1 - strokes), inside

    outlined, outlined_cover = on_paper(line)
    sketched, sketched_cover = on_paper(shaken)
    pale = color + (1 - color) * uniform(count, 0.0, 0.6, device)
    levels = torch.randint(1, 4, (count, 1, 1, 1), device=device).float()
    colors = torch.stack(
        [
            color,
            _turned(color),
            grey.expand_as(color),
            outlined.expand_as(color),
            sketched.expand_as(color),
            pale * (1 - line) + dark * line,
            (color * levels).round() / levels,
            ink.expand_as(color),
            1 - color,
        ]
    )
    covers = torch.stack([cover, cover, cover, outlined_cover, sketched_cover, cover, cover, cover, cover])
    here = torch.arange(count, device=device)
    return colors[look, here].clamp(0, 1), covers[look, here].clamp(0, 1)


def _ink(count: int, device: torch.device) -> Tensor:
    """Half of them dark, the others of any colour: ``(count, 3, 1, 1)``."""
    any_color = torch.rand(count, 3, 1, 1, device=device)
    return torch.where(torch.rand(count, 1, 1, 1, device=device) < 0.5, any_color * 0.3, any_color)


def _edges(channel: Tensor) -> Tensor:
    """How much changes within 3×3 pixels."""
    return nn.functional.max_pool2d(channel, 3, 1, 1) + nn.functional.max_pool2d(-channel, 3, 1, 1)


def _turned(color: Tensor) -> Tensor:
    """Another hue, by a turn about the grey axis, and another saturation."""
    angle = uniform(len(color), 0.4, 2 * math.pi - 0.4, color.device).view(-1, 1, 1)
    one = torch.full((3, 3), 1 / 3, device=color.device)
    cross = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]], device=color.device) / math.sqrt(3)
    eye = torch.eye(3, device=color.device)
    turn = angle.cos() * eye + (1 - angle.cos()) * one + angle.sin() * cross  # (B, 3, 3)
    strength = uniform(len(color), 0.5, 1.3, color.device).view(-1, 1, 1)
    return torch.einsum("bij,bjhw->bihw", strength * turn + (1 - strength) * one, color)


def field(count: int, side: int, reach: float, device: torch.device) -> Tensor:
    """A smooth random field of shifts, ``(count, side, side, 2)``, in shares of half a side."""
    knots = torch.randn(count, 2, 6, 6, device=device) * reach
    smooth = nn.functional.interpolate(knots, size=side, mode="bicubic", align_corners=True)
    return smooth.permute(0, 2, 3, 1)


def wobbled(channel: Tensor) -> Tensor:
    """Drawn with a hand that is not quite steady."""
    count, _, side, _ = channel.shape
    axis = torch.linspace(-1, 1, side, device=channel.device)
    rest = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1)
    shift = field(count, side, 0.02, channel.device)
    return nn.functional.grid_sample(channel, rest + shift, align_corners=True)
