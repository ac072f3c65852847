"""Pictures put together at random, a batch at once, with the class of each cell.

Letters: ``B`` pictures. Places are from -1 to 1, x to the right and y down.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from igva.probe import pack
from igva.probe.scenes import BACKDROP, COLORS, COVERED

from .looks import field, redrawn, uniform
from .sprites import Bank
from .text import HEIGHT, WIDTH, Lines

SIDE, GRID, FINE = 256, 8, 32
SLOTS = 9
# Things to a side, how often; the share of the slots that are taken; half sides of things in shares of a slot's.
LAYOUTS = ((1, 0.5, 0.95, (0.42, 1.0)), (2, 0.3, 0.75, (0.5, 1.0)), (3, 0.2, 0.65, (0.55, 1.0)))


def filled(cover: Tensor) -> Tensor:
    """Where a drawing is, the room between its lines included: ``(B, 1, SIDE, SIDE)`` → ``(B, 1, 64, 64)``, 0 or 1."""
    inked = (nn.functional.avg_pool2d(cover, SIDE // 64) > 0.08).float()
    wide = nn.functional.max_pool2d(inked, 9, 1, 4)
    return -nn.functional.max_pool2d(-nn.functional.pad(wide, (4, 4, 4, 4)), 9, 1)


class Composer:
    """Draws batches from a bank, lines of text and the pack's backgrounds."""

    def __init__(self, bank: Bank, lines: Lines, number: dict[str, int]):
        self.bank, self.lines, self.number = bank, lines, number
        self.device = bank.pixels.device
        self.classes = torch.tensor([number[name] for name in bank.names], device=self.device)
        photos = [torch.from_numpy(np.array(photo)) for photo in pack.backgrounds()]
        self.photos = torch.stack(photos).permute(0, 3, 1, 2).to(self.device)
        self.colors = torch.tensor(list(COLORS.values()), device=self.device) / 255
        self.color_classes = torch.tensor([number[color] for color in COLORS], device=self.device)
        axis = (torch.arange(SIDE, device=self.device) + 0.5) * 2 / SIDE - 1
        self.rest = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1)[None]  # (1, SIDE, SIDE, 2)

    @torch.no_grad()
    def __call__(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Pixels ``(B, 3, SIDE, SIDE)`` from 0 to 1, classes ``(B, 64)``, letters ``(B, 32, 32)``; -100: unknown."""
        pixels, ground = self._backgrounds(count)
        owner = ground[:, None].expand(count, GRID * GRID).clone()
        kind = torch.multinomial(torch.tensor([share for _, share, *_ in LAYOUTS], device=self.device), count, True)
        for slot in range(SLOTS):
            pixels, owner = self._thing(pixels, owner, kind, slot)
        letters = torch.zeros(count, FINE, FINE, dtype=torch.long, device=self.device)
        for line in range(3):
            pixels, owner, letters = self._text(pixels, owner, letters, line)
        return self._worn(pixels), owner, letters

    def _backgrounds(self, count: int) -> tuple[Tensor, Tensor]:
        device = self.device
        named = torch.randint(len(self.colors), (count,), device=device)
        plain = self.colors[named][:, :, None, None] + uniform(count, -0.04, 0.04, device)
        slope = self.rest[..., :1] * uniform(count, -1, 1, device) + self.rest[..., 1:] * uniform(count, -1, 1, device)
        ends = torch.rand(2, count, 3, 1, 1, device=device)
        shaded = ends[0] + (ends[1] - ends[0]) * (slope[..., 0][:, None] / 2.8 + 0.5)
        paper = uniform(count, 0.9, 1.0, device).expand(count, 3, 1, 1)
        photo = self.photos[torch.randint(len(self.photos), (count,), device=device)].float() / 255
        zoom, at = uniform(count, 0.45, 1.0, device), torch.rand(count, 1, 1, 2, device=device) * 2 - 1
        photo = nn.functional.grid_sample(photo, self.rest * zoom + at * (1 - zoom), align_corners=False)
        photo = photo * uniform(count, 0.5, 1.2, device)
        which = torch.multinomial(torch.tensor([0.35, 0.1, 0.25, 0.3], device=device), count, replacement=True)
        full = (count, 3, SIDE, SIDE)
        grounds = torch.stack([plain.expand(full), shaded, paper.expand(full), photo])
        pixels = grounds[which, torch.arange(count, device=device)].clamp(0, 1)
        words = torch.where(which == 0, self.color_classes[named], self.number[BACKDROP])
        return pixels, torch.where(which == 2, self.number["white"], words)

    def _thing(self, pixels: Tensor, owner: Tensor, kind: Tensor, slot: int) -> tuple[Tensor, Tensor]:
        """One more drawing in each picture whose layout has such a slot."""
        device = self.device
        sides = torch.tensor([side for side, *_ in LAYOUTS], device=device)[kind]
        taken = torch.tensor([share for *_, share, _ in LAYOUTS], device=device)[kind]
        here = ((sides**2 > slot) & (torch.rand(len(kind), device=device) < taken)).nonzero()[:, 0]
        if not len(here):
            return pixels, owner
        count, sides = len(here), sides[here].view(-1, 1, 1, 1)
        chosen = torch.multinomial(self.bank.weights, count, replacement=True)
        color, cover = redrawn(self.bank.pixels[chosen].float() / 255, self.bank.mono[chosen])
        least, most = (torch.tensor([span[end] for *_, span in LAYOUTS], device=device)[kind[here]] for end in (0, 1))
        half = (least + (most - least) * torch.rand(count, device=device)).view(-1, 1, 1, 1) / sides
        row, column = slot // sides, slot % sides
        middle = torch.cat([column, row], dim=-1) * 2 / sides + 1 / sides - 1
        loose = (1 / sides - half).clamp_min(0.08 / sides)
        middle = middle + loose * (torch.rand(count, 1, 1, 2, device=device) * 2 - 1)
        sampled = self._placed(torch.cat([color * cover, cover], dim=1), middle, half)
        shown, cover = sampled[:, :3], sampled[:, 3:]
        pixels = pixels.index_copy(0, here, pixels[here] * (1 - cover) + shown)
        share = nn.functional.avg_pool2d(filled(cover), 64 // GRID).flatten(1)
        wins = (share > 0) & (share >= share.amax(1, keepdim=True).clamp(max=COVERED))
        names = self.classes[self.bank.labels[chosen]][:, None]
        return pixels, owner.index_copy(0, here, torch.where(wins, names, owner[here]))

    def _placed(self, drawing: Tensor, middle: Tensor, half: Tensor) -> Tensor:
        """Drawings on empty pictures: tilted, leaning, wobbly or mirrored by chance."""
        count, device = len(drawing), self.device
        small = (half.flatten() * SIDE < drawing.shape[-1] * 0.6)[:, None, None, None]
        drawing = torch.where(small, nn.functional.avg_pool2d(drawing, 3, 1, 1), drawing)
        angle = torch.randn(count, 1, 1, 1, device=device) * 0.35 * (uniform(count, 0, 1, device) < 0.4)
        away = self.rest - middle
        turned = torch.cat(
            [
                away[..., :1] * angle.cos() + away[..., 1:] * angle.sin(),
                away[..., 1:] * angle.cos() - away[..., :1] * angle.sin(),
            ],
            dim=-1,
        )
        grid = turned / half
        lean = torch.randn(count, 1, 1, 2, device=device) * 0.12 * (uniform(count, 0, 1, device) < 0.3)
        grid = grid / (1 + (grid * lean).sum(-1, keepdim=True)).clamp_min(0.3)
        mirrored = torch.where(torch.rand(count, 1, 1, 1, device=device) < 0.5, -1.0, 1.0)
        shaky = (uniform(count, 0, 1, device) < 0.2) * field(count, SIDE, 0.035, device)
        grid = torch.cat([grid[..., :1] * mirrored, grid[..., 1:]], dim=-1) + shaky
        return nn.functional.grid_sample(drawing, grid, align_corners=False)

    def _text(self, pixels: Tensor, owner: Tensor, letters: Tensor, line: int) -> tuple[Tensor, Tensor, Tensor]:
        """A line of text in some of the pictures, in one of three rows."""
        device = self.device
        here = (torch.rand(len(pixels), device=device) < 0.12).nonzero()[:, 0]
        if not len(here):
            return pixels, owner, letters
        count = len(here)
        chosen = torch.randint(len(self.lines.words), (count,), device=device)
        high = uniform(count, 9, 34, device) / SIDE  # half the height
        wide = high * WIDTH / HEIGHT
        span = self.lines.spans[chosen].view(-1, 1, 1, 1)
        free = (1 - wide * span).clamp_min(0.0)  # the line's written part stays inside
        x = -free + 2 * free * torch.rand(count, 1, 1, 1, device=device) + wide * (1 - span)
        y = (line - 1) * 0.62 + uniform(count, -0.2, 0.2, device)
        middle = torch.cat([x, y], dim=-1)
        both = torch.cat([self.lines.inks[chosen].float() / 255, self.lines.letters[chosen].float()], dim=1)
        grid = (self.rest - middle) / torch.cat([wide, high], dim=-1)
        ink = nn.functional.grid_sample(both[:, :1], grid, align_corners=False)
        step = SIDE // FINE
        spelt = nn.functional.grid_sample(
            both[:, 1:], grid[:, step // 2 :: step, step // 2 :: step], mode="nearest", align_corners=False
        )[:, 0].long()
        behind = pixels[here].mean(dim=(1, 2, 3), keepdim=True)
        shade = torch.where(behind > 0.45, 0.0, 0.75) + 0.25 * torch.rand(count, 3, 1, 1, device=device)
        pixels = pixels.index_copy(0, here, pixels[here] * (1 - ink) + shade * ink)
        reach = grid[:, SIDE // 16 :: SIDE // GRID, SIDE // 16 :: SIDE // GRID]  # middles of the cells
        written = (reach[..., 1].abs() < 1) & (reach[..., 0] > -1) & (reach[..., 0] < span[..., 0] * 2 - 1)
        owner = owner.index_copy(
            0, here, torch.where(written.flatten(1), self.lines.words[chosen][:, None], owner[here])
        )
        inside = grid[:, step // 2 :: step, step // 2 :: step].abs().amax(-1) < 1
        return pixels, owner, letters.index_copy(0, here, torch.where(inside, spelt, letters[here]))

    def _worn(self, pixels: Tensor) -> Tensor:
        """Another brightness, a cast, noise, blur or fewer pixels, by chance."""
        count, device = len(pixels), self.device

        def some(share: float) -> Tensor:
            return torch.rand(count, 1, 1, 1, device=device) < share

        cast = 1 + 0.08 * torch.randn(count, 3, 1, 1, device=device)
        pixels = torch.where(some(0.2), pixels * cast * uniform(count, 0.75, 1.15, device), pixels)
        coarse = nn.functional.interpolate(
            nn.functional.avg_pool2d(pixels, 2), scale_factor=2, mode="bilinear", align_corners=False
        )
        pixels = torch.where(some(0.12), coarse, pixels)
        noise = torch.randn_like(pixels) * uniform(count, 0.01, 0.05, device)
        return torch.where(some(0.2), pixels + noise, pixels).clamp(0, 1)

    def sheet(self, path: Path) -> None:
        """A contact sheet of 24 pictures; their classes are printed."""
        torch.manual_seed(3)
        pixels, owner, letters = self(24)
        name = {place: word for word, place in self.number.items()} | {-100: "?"}
        for number, cells in enumerate(owner.tolist()):
            print(number, sorted({name[cell] for cell in cells}), int((letters[number] > 0).sum()))
        rows = [torch.cat(list(pixels[start : start + 6]), dim=2) for start in range(0, 24, 6)]
        whole = (torch.cat(rows, dim=1) * 255).byte().permute(1, 2, 0).cpu().numpy()
        Image.fromarray(whole).save(path)
