"""Layer means and sentence vectors, computed once and kept.

A layer mean depends on the picture, the tower and the taps alone, so it is keyed by these: the picture by the hash
of its encoded bytes, the tower by the hash of its weights. Only the taps a fusion asks for are kept, never raw layers.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from tqdm import tqdm

from igva.data.blank import blank_image
from igva.data.images import ImageSource, image_bytes
from igva.errors import UserError
from igva.model.modeling_igva import IgvaForConditionalGeneration
from igva.model.processing_igva import IgvaProcessor, mean_color
from igva.model.vision_ensemble import EnsembleVisionConfig
from igva.model.vision_layers import Tap, VisionLayers
from igva.paths import home
from igva.train.feature_workers import PIECE, Piece, layer_means, pieces, worker_count
from igva.train.shards import Shards

SHARD = 256  # pictures per file: what a killed run loses at most
SENTENCES = 4096  # of them per file
T = TypeVar("T")


def tower_key(model: IgvaForConditionalGeneration, processor: IgvaProcessor, taps: Sequence[Tap]) -> str:
    """A short hash of everything the layer means depend on besides the picture."""
    settings = {
        "taps": taps,
        "pool": model.config.vision_pool,
        "input_size": model.config.input_size,
        "image_processor": processor.image_processor.to_dict(),
        "padding": mean_color(processor.image_processor) if processor.pad_images else None,
    }
    if isinstance(ensemble := model.config.vision, EnsembleVisionConfig):
        settings["encoders"] = ensemble.beside_weights()
    return _digest(model.model.vision_tower, settings)


def encoder_key(model: IgvaForConditionalGeneration, processor: IgvaProcessor) -> str:
    """A short hash of everything a sentence vector depends on besides the text."""
    tokenizer = processor.instruction_tokenizer
    settings = {
        "pooling": model.config.instruction_pooling,
        "normalize": model.config.instruction_normalize,
        "longest": tokenizer.model_max_length,
        "tokens": sorted(tokenizer.get_vocab().items()),
    }
    encoder: Any = model.model.instruction_encoder  # a model that reads instructions has one
    return _digest(encoder, settings)


def _digest(encoder: nn.Module, settings: dict[str, Any]) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(encoder.state_dict().items()):
        digest.update(name.encode())
        # A single number (BatchNorm's counter) has no last axis to see as bytes, so everything is flat.
        digest.update(value.detach().cpu().flatten().view(torch.uint8).numpy().data)
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:16]


def picture_key(image: ImageSource) -> str:
    """The hash of a picture's encoded bytes; raises ``UserError`` where there are none."""
    return hashlib.sha256(image_bytes(image)).hexdigest()


class LayerCache:
    """Layer means on disk, memory-mapped: files of ``SHARD`` pictures and an index.

    Calling it with pictures gives their ``VisionLayers``.

    Args:
        taps: the layer sets whose means are kept; default: those of the model's fusion.
        workers: processes that compute; 0: this one; None: as many as there are cores, where it is worth it.

    Attributes:
        bad: pictures that ``fill`` could not read, name → why.
    """

    def __init__(
        self,
        model: IgvaForConditionalGeneration,
        processor: IgvaProcessor,
        root: Path | None = None,
        taps: Sequence[Tap] | None = None,
        workers: int | None = None,
    ):
        self.model = model
        self.processor = processor
        self.taps = tuple(taps or model.model.fusion.taps)
        self.workers = workers
        self.bad: dict[str, str] = {}
        self._shards = Shards((root or home() / "features") / tower_key(model, processor, self.taps))
        self._keys: dict[ImageSource, str] = {}
        self._told = False

    @property
    def folder(self) -> Path:
        """Where they lie."""
        return self._shards.folder

    def refresh(self) -> None:
        """Take notice of what another process has computed."""
        self._shards.refresh()

    def fill(self, images: Iterable[ImageSource], batch_size: int | None = None, on_bad: str = "fail") -> None:
        """Compute what is missing; what is there already is kept. Progress on standard error.

        Args:
            batch_size: pictures in the tower at a time; default: what fills the device.
            on_bad: ``fail``, or ``record``: pictures that cannot be read are noted in ``bad``, and the blank picture
                that stands in for them is computed.

        Raises:
            UserError: a picture cannot be read and ``on_bad`` is ``fail``.
        """
        todo: dict[str, list[ImageSource]] = {}  # by content
        for image in dict.fromkeys(images):
            with self._bad_recorded([image], on_bad):
                if (key := self._key(image)) not in self._shards:
                    todo.setdefault(key, []).append(image)
        batch_size = batch_size or (128 if self.model.device.type == "cuda" else PIECE)
        workers = worker_count(len(todo), self.workers)
        if workers and todo and not self._told:
            tqdm.write(f"vision features: {workers} worker{'s' * (workers > 1)}", file=sys.stderr)
            self._told = True
        self._fill(todo, batch_size, on_bad, workers)
        if self.bad:
            blank = blank_image(self.processor.image_processor)
            if (key := self._key(blank)) not in self._shards:
                self._fill({key: [blank]}, 1, "fail", workers=0)

    def _fill(self, todo: dict[str, list[ImageSource]], batch_size: int, on_bad: str, workers: int) -> None:
        if not todo:
            return
        entries = [(key, images[0]) for key, images in todo.items()]
        shards = [list(_batches(shard, min(batch_size, PIECE))) for shard in _batches(entries, SHARD)]
        batches = [batch for shard in shards for batch in shard]
        with (
            tqdm(total=len(todo), desc="vision features", unit="picture") as bar,
            pieces(self.model.model, self.processor, self.taps, batches, workers) as found,
        ):
            for shard in shards:
                keys: list[str] = []
                means: list[VisionLayers] = []
                waiting: list[Piece] = []
                for left in reversed(range(len(shard))):
                    piece = next(found)
                    for key, why in piece.bad.items():
                        with self._bad_recorded(todo[key], on_bad):
                            raise UserError(why)
                    keys += piece.keys
                    waiting += [piece] if piece.keys else []
                    if waiting and (not left or sum(len(p.keys) for p in waiting) >= batch_size):
                        means.append(self._computed(waiting))
                        waiting = []
                    bar.update(len(piece.keys) + len(piece.bad))
                if keys:
                    self._write(keys, means)

    @contextmanager
    def _bad_recorded(self, images: Sequence[ImageSource], on_bad: str) -> Iterator[None]:
        """Where these pictures, all of one content, cannot be read, note it if that is wanted."""
        try:
            yield
        except UserError as error:
            if on_bad == "fail":
                raise
            self.bad |= {str(image): str(error) for image in images}

    def _computed(self, waiting: Sequence[Piece]) -> VisionLayers:
        """The layer means of pieces, as one."""
        pixels = [piece.pixels for piece in waiting if piece.pixels is not None]
        if pixels:
            return layer_means(self.model.model, torch.cat(pixels), self.taps)
        return _joined([piece.means for piece in waiting if piece.means is not None])

    def _write(self, keys: list[str], means: list[VisionLayers]) -> None:
        whole = _joined(means)
        self._shards.write(keys, {"patches": whole.patches, "descriptors": whole.descriptors})

    def _key(self, image: ImageSource) -> str:
        if image not in self._keys:
            self._keys[image] = picture_key(image)
        return self._keys[image]

    def __call__(self, images: Sequence[ImageSource], places: Sequence[int] | None = None) -> VisionLayers:
        """The layer means of pictures that ``fill`` has computed: ``(n, T, N, D)`` and ``(n, T, D)``, bfloat16.

        Args:
            places: of the taps wanted, where all of them are not; only these are read.
        """
        keys = [self._key(image) for image in images]
        patches, descriptors = (
            torch.stack([self._row(key, which, places) for key in keys]) for which in ("patches", "descriptors")
        )
        return VisionLayers(patches, descriptors)

    def _row(self, key: str, which: str, places: Sequence[int] | None) -> Tensor:
        row = self._shards.row(key, which, places)
        return row if places is None else torch.stack(row)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "model": None}  # workers never compute


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _joined(means: Sequence[VisionLayers]) -> VisionLayers:
    return VisionLayers(torch.cat([m.patches for m in means]), torch.cat([m.descriptors for m in means]))


class InstructionCache:
    """Sentence vectors of every distinct user turn, on disk; calling it with turns gives their mean, ``(E,)``."""

    def __init__(self, model: IgvaForConditionalGeneration, processor: IgvaProcessor, root: Path | None = None):
        self.model = model
        self.processor = processor
        self.width = int(model.config.instruction_dim or 0)
        key = encoder_key(model, processor)
        self._shards = Shards((root or home() / "features") / f"sentences-{key}")
        self._vectors: dict[str, Tensor] = {}

    def fill(self, turns: Iterable[str], batch_size: int = 64) -> None:
        """Read the turns not seen yet, and encode those that are not on disk either."""
        new = {hashlib.sha256(turn.encode()).hexdigest(): turn for turn in turns if turn not in self._vectors}
        found = self._shards.rows([key for key in new if key in self._shards], "vectors")
        self._vectors |= {new.pop(key): vector for key, vector in found.items()}
        # Sentences of like length share a batch, so that little of it is padding.
        todo = sorted(new.items(), key=lambda item: len(item[1]))
        with tqdm(total=len(todo), desc="sentence vectors", disable=not todo) as bar:
            for shard in _batches(todo, SENTENCES):
                parts = []
                for batch in _batches(shard, batch_size):
                    parts.append(self._encoded([turn for _, turn in batch]))
                    bar.update(len(batch))
                vectors = torch.cat(parts)
                self._shards.write([key for key, _ in shard], {"vectors": vectors})
                self._vectors |= {turn: vector for (_, turn), vector in zip(shard, vectors, strict=True)}

    @torch.inference_mode()
    def _encoded(self, turns: Sequence[str]) -> Tensor:
        tokens = self.processor.encode_instructions([[turn] for turn in turns])
        device = self.model.device
        vectors = self.model.model.encode_instruction(*(torch.tensor(value).to(device) for value in tokens.values()))
        return vectors.float().cpu()

    def __call__(self, turns: Sequence[str]) -> Tensor:
        if not turns:
            return torch.zeros(self.width)
        return torch.stack([self._vectors[turn] for turn in turns]).mean(dim=0)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "model": None}
