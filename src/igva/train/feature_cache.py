"""Layer means and sentence vectors, computed once and kept.

A layer mean depends on the picture, the tower and the taps alone, so it is keyed by these: the picture by the hash
of its encoded bytes, the tower by the hash of its weights. Only the taps a fusion asks for are kept, never raw layers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from igva.data.blank import blank_image
from igva.data.images import ImageSource, image_bytes, open_image
from igva.errors import UserError
from igva.model.modeling_igva import IgvaForConditionalGeneration
from igva.model.processing_igva import IgvaProcessor
from igva.model.vision_layers import Tap, VisionLayers
from igva.paths import home

SHARD = 256  # pictures per file: what a killed run loses at most


def tower_key(model: IgvaForConditionalGeneration, processor: IgvaProcessor, taps: Sequence[Tap]) -> str:
    """A short hash of everything the layer means depend on besides the picture."""
    digest = hashlib.sha256()
    for name, value in sorted(model.model.vision_tower.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    settings = {
        "taps": taps,
        "pool": model.config.vision_pool,
        "input_size": model.config.input_size,
        "image_processor": processor.image_processor.to_dict(),
    }
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:16]


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is worth it for a float32 tower: on a CPU, whether oneDNN takes it. Else it is much slower."""
    if device.type != "cpu":
        return True
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def picture_key(image: ImageSource) -> str:
    """The hash of a picture's encoded bytes; raises ``UserError`` where there are none."""
    return hashlib.sha256(image_bytes(image)).hexdigest()


class LayerCache:
    """Layer means on disk, memory-mapped: files of ``SHARD`` pictures and an index.

    Calling it with pictures gives their ``VisionLayers``.

    Args:
        taps: the layer sets whose means are kept; default: those of the model's fusion.

    Attributes:
        bad: pictures that ``fill`` could not read, name → why.
    """

    def __init__(
        self,
        model: IgvaForConditionalGeneration,
        processor: IgvaProcessor,
        root: Path | None = None,
        taps: Sequence[Tap] | None = None,
    ):
        self.model = model
        self.processor = processor
        self.taps = tuple(taps or model.model.fusion.taps)
        self.folder = (root or home() / "features") / tower_key(model, processor, self.taps)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._place: dict[str, tuple[str, int]] = {}  # picture key -> file, row
        self.bad: dict[str, str] = {}
        self._keys: dict[ImageSource, str] = {}
        self._open: dict[str, Any] = {}
        self.refresh()

    def refresh(self) -> None:
        """Take notice of what another process has computed."""
        for index in sorted(self.folder.glob("*.json")):
            for row, key in enumerate(json.loads(index.read_text())):
                self._place[key] = (index.with_suffix(".safetensors").name, row)

    def fill(self, images: Iterable[ImageSource], batch_size: int = 16, on_bad: str = "fail") -> None:
        """Compute what is missing; what is there already is kept. Progress on standard error.

        Args:
            on_bad: ``fail``, or ``record``: pictures that cannot be read are noted in ``bad``, and the blank picture
                that stands in for them is computed.

        Raises:
            UserError: a picture cannot be read and ``on_bad`` is ``fail``.
        """
        todo: dict[str, list[ImageSource]] = {}  # by content
        for image in dict.fromkeys(images):
            with self._noting([image], on_bad):
                if (key := self._key(image)) not in self._place:
                    todo.setdefault(key, []).append(image)
        self._fill(todo, batch_size, on_bad)
        if self.bad:
            blank = blank_image(self.processor.image_processor)
            if (key := self._key(blank)) not in self._place:
                self._fill({key: [blank]}, 1, "fail")

    def _fill(self, todo: dict[str, list[ImageSource]], batch_size: int, on_bad: str) -> None:
        with tqdm(total=len(todo), desc="vision features", unit="picture", disable=not todo) as bar:
            entries = iter(todo.items())
            while shard := list(islice(entries, SHARD)):
                keys: list[str] = []
                means: list[VisionLayers] = []
                for start in range(0, len(shard), batch_size):
                    batch = shard[start : start + batch_size]
                    pictures: list[Image.Image] = []
                    for key, images in batch:
                        with self._noting(images, on_bad):
                            pictures.append(open_image(images[0]))
                            keys.append(key)
                    if pictures:
                        means.append(self._compute(pictures))
                    bar.update(len(batch))
                if keys:
                    self._write(keys, means)

    @contextmanager
    def _noting(self, images: Sequence[ImageSource], on_bad: str) -> Iterator[None]:
        """Where these pictures, all of one content, cannot be read, note it if that is wanted."""
        try:
            yield
        except UserError as error:
            if on_bad == "fail":
                raise
            self.bad |= {str(image): str(error) for image in images}

    @torch.inference_mode()
    def _compute(self, pictures: Sequence[Image.Image]) -> VisionLayers:
        pixels = self.processor.prepare_images(pictures)
        device = self.model.device
        with torch.autocast(device.type, torch.bfloat16, enabled=multiplies_bfloat16(device)):
            means = self.model.model.encode_image_layers(pixels.to(device), self.taps)
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

    def _key(self, image: ImageSource) -> str:
        if image not in self._keys:
            self._keys[image] = picture_key(image)
        return self._keys[image]

    def __call__(self, images: Sequence[ImageSource], places: Sequence[int] | None = None) -> VisionLayers:
        """The layer means of pictures that ``fill`` has computed: ``(n, T, N, D)`` and ``(n, T, D)``, bfloat16.

        Args:
            places: of the taps wanted, where all of them are not; only these are read.
        """
        rows = [self._read(*self._place[self._key(image)], places) for image in images]
        return VisionLayers(torch.stack([p for p, _ in rows]), torch.stack([d for _, d in rows]))

    def _read(self, file: str, row: int, places: Sequence[int] | None) -> tuple[Tensor, Tensor]:
        if file not in self._open:
            self._open[file] = safe_open(self.folder / file, framework="pt")
        slices = [self._open[file].get_slice(name) for name in ("patches", "descriptors")]
        if places is None:
            return slices[0][row], slices[1][row]
        patches, descriptors = (torch.stack([part[row, place] for place in places]) for part in slices)
        return patches, descriptors

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
