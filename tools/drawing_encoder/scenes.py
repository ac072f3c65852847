"""Scenes of the probe suite's training split, with their cell labels; and pictures to watch by."""

import json
import threading
import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from igva.model.processing_igva import pad_to_square
from igva.probe import pack
from igva.probe.drawing import SHAPES
from igva.probe.scenes import BACKDROP, COLORS
from igva.probe.task_charts import COLUMNS, FIELDS, ROWS, WORDS
from igva.probe.task_fine import PATTERNS
from igva.train.cells import PHOTOS, read_cells
from igva.train.imagined_cells import read_photos

SIDE, CELLS = 256, 64


def vocabulary() -> list[str]:
    """Every word that a cell of the suite can have."""
    shapes = [f"{look} {shape}" for look in (*COLORS, *PATTERNS) for shape in SHAPES]
    numbers = [str(number) for number in range(100)]
    names = [*pack.nouns(), *pack.photo_nouns()]
    return [*names, *COLORS, BACKDROP, "line", *shapes, *numbers, *WORDS, *FIELDS, *ROWS, *COLUMNS]


def read(path: Path) -> torch.Tensor:
    """A picture, squared on grey → uint8 ``(3, SIDE, SIDE)``."""
    square = pad_to_square(Image.open(path).convert("RGB"), (127, 127, 127))
    return torch.from_numpy(np.array(square.resize((SIDE, SIDE), Image.Resampling.BICUBIC))).permute(2, 0, 1)


class Scenes:
    """Those of the folders that match ``pattern``, read in the background as the folders get complete."""

    def __init__(self, pattern: str, number: dict[str, int], device: torch.device):
        self.pattern, self.number, self.device = Path(pattern), number, device
        self.pixels: list[torch.Tensor] = []
        self.cells: list[torch.Tensor] = []
        self.count = 0
        self.failure: Exception | None = None
        if pattern:
            threading.Thread(target=self._follow, daemon=True).start()

    def empty(self) -> bool:
        """Whether there are none yet; raises what kept them from being read."""
        if self.failure is not None:
            raise self.failure
        return self.count == 0

    def _follow(self) -> None:
        try:
            self._read()
        except Exception as failure:  # of whatever kind: who asks next is told
            self.failure = failure

    def _read(self) -> None:
        done: set[Path] = set()
        with ThreadPoolExecutor(4) as pool:
            while True:
                for file in sorted(set(self.pattern.parent.glob(f"{self.pattern.name}/cells.json")) - done):
                    done.add(file)
                    cells = read_cells(file, file.parent, CELLS)
                    pictures = torch.stack(list(pool.map(read, cells)))
                    self.pixels.append(pictures.to(self.device))
                    photos = read_photos(file.with_name(PHOTOS), file.parent, CELLS)
                    wanted = [self._wanted(words, photos.get(picture, ())) for picture, words in cells.items()]
                    self.cells.append(torch.tensor(wanted, device=self.device))
                    self.count += len(pictures)
                time.sleep(2)

    def _wanted(self, words: list[str], photos: Collection[int]) -> list[int]:
        """The classes of a scene's cells. Photographed things count for nothing: what this encoder, which is for
        drawings, says of a photograph should be as doubtful in training as of any other."""
        return [
            -100 if cell in photos and word != BACKDROP else self.number.get(word, -100)
            for cell, word in enumerate(words)
        ]

    def __call__(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """``count`` of them: pixels from 0 to 1, and the words' numbers ``(count, 64)``."""
        part = int(torch.randint(len(self.cells), (1,)))
        chosen = torch.randint(len(self.cells[part]), (count,), device=self.device)
        pixels = self.pixels[part][chosen].float() / 255
        gain = 1 + 0.15 * torch.randn(count, 1, 1, 1, device=self.device)
        return (pixels * gain.clamp(0.6, 1.4)).clamp(0, 1), self.cells[part][chosen]


class Watch:
    """How many pictures of question files are named by their cells; nothing is decided by it."""

    def __init__(self, folder: Path, number: dict[str, int], device: torch.device):
        entries = [
            (file.parent / entry["image"], entry["answer"], entry["category"])
            for file in sorted(folder.glob("*/questions.json"))
            for entry in json.loads(file.read_text())
            if entry["answer"] in pack.nouns() and entry["category"] != "open"
        ]
        self.kinds = [kind for *_, kind in entries]
        self.pixels = torch.stack([read(path) for path, *_ in entries]).to(device)
        self.wanted = torch.tensor([number[answer] for _, answer, _ in entries], device=device)
        self.nouns = torch.tensor([number[name] for name in pack.nouns()], device=device)

    @torch.no_grad()
    def __call__(self, student: nn.Module) -> str:
        """Percent right of each kind, by the mean over the cells of what is said of the names."""
        student.eval()
        said = torch.cat(
            [student(part / 255)[0].float().softmax(-1)[..., self.nouns].mean(1) for part in self.pixels.split(64)]
        )
        right = self.nouns[said.argmax(-1)].eq(self.wanted).tolist()
        shares: dict[str, list[bool]] = {}
        for ok, kind in zip(right, self.kinds, strict=True):
            shares.setdefault(kind, []).append(ok)
        return "    named: " + ", ".join(f"{kind} {100 * sum(oks) / len(oks):.1f}" for kind, oks in shares.items())
