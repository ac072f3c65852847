"""Layer means and sentence vectors, computed once and kept.

A layer mean depends on the picture, the tower and the taps alone, so it is keyed by these: the picture by the hash
of its file, the tower by the hash of its weights. Only the taps a fusion asks for are kept, never raw layers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from igva.data.images import open_image
from igva.model.modeling_igva import IgvaForConditionalGeneration
from igva.model.processing_igva import IgvaProcessor
from igva.model.vision_layers import VisionLayers
from igva.paths import home

SHARD = 256  # pictures per file: what a killed run loses at most


def tower_key(model: IgvaForConditionalGeneration, processor: IgvaProcessor) -> str:
    """A short hash of everything the layer means depend on besides the picture."""
    digest = hashlib.sha256()
    for name, value in sorted(model.model.vision_tower.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    settings = {
        "taps": model.model.fusion.taps,
        "pool": model.config.vision_pool,
        "input_size": model.config.input_size,
        "image_processor": processor.image_processor.to_dict(),
    }
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:16]


def picture_key(path: Path) -> str:
    """The hash of a picture's file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


class LayerCache:
    """Layer means on disk, memory-mapped: files of ``SHARD`` pictures and an index.

    Calling it with picture paths gives their ``VisionLayers``.
    """

    def __init__(self, model: IgvaForConditionalGeneration, processor: IgvaProcessor, root: Path | None = None):
        self.model = model
        self.processor = processor
        self.folder = (root or home() / "features") / tower_key(model, processor)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._place: dict[str, tuple[str, int]] = {}  # picture key -> file, row
        self._keys: dict[Path, str] = {}
        self._open: dict[str, Any] = {}
        for index in sorted(self.folder.glob("*.json")):
            for row, key in enumerate(json.loads(index.read_text())):
                self._place[key] = (index.with_suffix(".safetensors").name, row)

    def fill(self, paths: Iterable[Path], batch_size: int = 16) -> None:
        """Compute what is missing; what is there already is kept. Progress on standard error."""
        todo: dict[str, Path] = {}
        for path in dict.fromkeys(paths):
            key = self._key(path)
            if key not in self._place:
                todo.setdefault(key, path)
        entries = list(todo.items())
        with tqdm(total=len(entries), desc="vision features", unit="picture", disable=not entries) as bar:
            for start in range(0, len(entries), SHARD):
                shard = entries[start : start + SHARD]
                means = [self._compute(shard[i : i + batch_size], bar) for i in range(0, len(shard), batch_size)]
                self._write([key for key, _ in shard], means)

    @torch.inference_mode()
    def _compute(self, entries: Sequence[tuple[str, Path]], bar: Any) -> VisionLayers:
        pixels = self.processor.prepare_images([open_image(path) for _, path in entries])
        device = self.model.device
        with torch.autocast(device.type, torch.bfloat16):
            means = self.model.model.encode_image_layers(pixels.to(device))
        bar.update(len(entries))
        return means.to(device="cpu", dtype=torch.bfloat16)

    def _write(self, keys: list[str], means: list[VisionLayers]) -> None:
        """The tensors first, then the index that makes them count: a crash leaves no half-written shard in use."""
        name = hashlib.sha256("".join(keys).encode()).hexdigest()[:16]
        tensors = {
            "patches": torch.cat([m.patches for m in means]).contiguous(),
            "descriptors": torch.cat([m.descriptors for m in means]).contiguous(),
        }
        part = self.folder / f"{name}.safetensors.part"
        save_file(tensors, part)
        part.replace(self.folder / f"{name}.safetensors")
        index = self.folder / f"{name}.json.part"
        index.write_text(json.dumps(keys))
        index.replace(self.folder / f"{name}.json")
        self._place.update({key: (f"{name}.safetensors", row) for row, key in enumerate(keys)})

    def _key(self, path: Path) -> str:
        if path not in self._keys:
            self._keys[path] = picture_key(path)
        return self._keys[path]

    def __call__(self, paths: Sequence[Path]) -> VisionLayers:
        """The layer means of pictures that ``fill`` has seen: ``(n, T, N, D)`` and ``(n, T, D)``, bfloat16."""
        rows = [self._read(*self._place[self._key(path)]) for path in paths]
        return VisionLayers(torch.stack([p for p, _ in rows]), torch.stack([d for _, d in rows]))

    def _read(self, file: str, row: int) -> tuple[Tensor, Tensor]:
        if file not in self._open:
            self._open[file] = safe_open(self.folder / file, framework="pt")
        handle = self._open[file]
        return handle.get_slice("patches")[row], handle.get_slice("descriptors")[row]

    def __getstate__(self) -> dict[str, Any]:
        # Workers open the files for themselves and never compute.
        return {**self.__dict__, "model": None, "_open": {}}


class InstructionCache:
    """Sentence vectors of every distinct user turn; calling it with turns gives their mean, ``(E,)``."""

    def __init__(self, model: IgvaForConditionalGeneration, processor: IgvaProcessor):
        self.model = model
        self.processor = processor
        self.width = int(model.config.instruction_dim or 0)
        self._vectors: dict[str, Tensor] = {}

    @torch.inference_mode()
    def fill(self, turns: Iterable[str], batch_size: int = 64) -> None:
        """Encode the turns not seen yet."""
        # Sentences of like length share a batch, so that little of it is padding.
        todo = sorted({turn for turn in turns if turn not in self._vectors}, key=len)
        for start in tqdm(range(0, len(todo), batch_size), desc="sentence vectors", disable=not todo):
            batch = todo[start : start + batch_size]
            tokens = self.processor.encode_instructions([[turn] for turn in batch])
            vectors = self.model.model.encode_instruction(
                *(torch.tensor(value).to(self.model.device) for value in tokens.values())
            )
            self._vectors.update(zip(batch, vectors.float().cpu(), strict=True))

    def __call__(self, turns: Sequence[str]) -> Tensor:
        if not turns:
            return torch.zeros(self.width)
        return torch.stack([self._vectors[turn] for turn in turns]).mean(dim=0)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "model": None}
