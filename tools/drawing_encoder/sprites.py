"""The bank of drawings as one tensor."""

import io
import json
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image

SIDE = 112  # pixels of a drawing's longer side


class Bank:
    """All drawings, RGBA on squares of ``SIDE``. Photographs are left out: what this encoder says of those that train
    should be as doubtful as of any other.

    Attributes:
        pixels: uint8 ``(n, 4, SIDE, SIDE)``.
        labels: the number of each one's name in ``names``.
        mono: whether it is in one black ink.
    """

    def __init__(self, folder: Path, device: torch.device):
        index = json.loads((folder / "index.json").read_text())
        self.names: list[str] = index["names"]
        files = [file for file in index["files"] if file[3] != "photo"]
        number = {name: place for place, name in enumerate(self.names)}
        with zipfile.ZipFile(folder / "bank.zip") as archive:
            packed = [archive.read(path) for path, *_ in files]
        with ThreadPoolExecutor() as pool:
            self.pixels = torch.stack(list(pool.map(read, packed))).to(device)
        self.labels = torch.tensor([number[name] for _, name, *_ in files], device=device)
        self.mono = torch.tensor([kind == "mono" for *_, kind in files], device=device)
        # Names are drawn as often as one another up to the square root of how many drawings they have.
        counts = torch.bincount(self.labels, minlength=len(self.names)).float().clamp_min(1)
        core = torch.tensor([name in set(index["core"]) for name in self.names], device=device)
        by_name = counts.sqrt() * torch.where(core, 2.0, 1.0)
        self.weights = (by_name / counts)[self.labels] * torch.where(self.mono, 0.5, 1.0)


def read(packed: bytes) -> torch.Tensor:
    """A picture file → uint8 ``(4, SIDE, SIDE)``, the picture in the middle."""
    image = Image.open(io.BytesIO(packed)).convert("RGBA")
    scale = SIDE / max(image.size)
    image = image.resize([max(1, round(edge * scale)) for edge in image.size], Image.Resampling.BICUBIC)
    square = Image.new("RGBA", (SIDE, SIDE))
    square.paste(image, ((SIDE - image.width) // 2, (SIDE - image.height) // 2))
    return torch.from_numpy(np.array(square)).permute(2, 0, 1)
