"""Pictures → layer means, in this process or in several.

On a CPU each worker has the tower and does everything, with one thread: a tower of this size gains less from a second
thread than from a second process (benchmarks/features.py), and much less where the cores are shared. Before an
accelerator, which only this process uses, the workers decode and prepare.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from igva.data.images import ImageSource, open_image
from igva.errors import UserError
from igva.model.modeling_igva import IgvaModel
from igva.model.processing_igva import IgvaProcessor
from igva.model.vision_layers import Tap, VisionLayers
from igva.train.precision import multiplies_bfloat16

MOST_WORKERS = 16
WORTH_WORKERS = 512  # pictures: below, starting processes takes longer than they save
PIECE = 16  # pictures that a worker hands over at a time

Entry = tuple[str, ImageSource]  # key, picture


@dataclass
class Piece:
    """What has become of some pictures.

    Attributes:
        keys: of those that could be read, in order.
        pixels: these, prepared, ``(n, 3, height, width)``; None once computed, or where there is none.
        means: their layer means; None until computed.
        bad: those that could not be read, key → why.
    """

    keys: list[str]
    pixels: Tensor | None
    means: VisionLayers | None
    bad: dict[str, str]


def worker_count(pictures: int, wanted: int | None) -> int:
    """How many processes to start for so many pictures.

    Args:
        wanted: None leaves the choice: one per core, none for few pictures or on a single core.
    """
    if multiprocessing.current_process().daemon:  # itself a data loading process: it may not start others
        return 0
    if wanted is not None:
        return wanted
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 0 if pictures < WORTH_WORKERS or cores == 1 else min(cores, MOST_WORKERS)


@contextmanager
def pieces(
    model: IgvaModel, processor: IgvaProcessor, taps: Sequence[Tap], batches: Sequence[Sequence[Entry]], workers: int
) -> Iterator[Iterator[Piece]]:
    """One piece per batch, in their order; those of a CPU's workers are computed, the others prepared.

    Raises:
        UserError: on reading, the workers could not be started or have died.
    """
    if not workers:
        yield (prepared(batch, processor) for batch in batches)
        return
    computes = next(model.vision_tower.parameters()).device.type == "cpu"
    with tempfile.TemporaryDirectory(prefix="igva-tower-") as folder:
        tower = Path(folder) / "tower.pt" if computes else None
        if tower:  # a file, not shared memory: that is small in containers, and mapped it is in memory once as well
            torch.save(model.vision_tower, tower)
        work = _Work(batches, processor, model.config, tuple(taps), tower)
        loader: DataLoader[Any] = DataLoader(
            work,
            batch_size=None,
            num_workers=workers,
            multiprocessing_context=_context(),
            collate_fn=_as_it_is,
            worker_init_fn=_end_with_parent,
        )
        watched = _watched(iter(loader))
        try:
            yield watched
        finally:
            watched.close()  # it alone holds the loader's iterator, which ends the processes when it goes


def _context() -> Any:
    """How processes start: never as copies of this one, whose threads (OpenMP's, a tokenizer's) a copy would wait for.

    Where there is a fork server the imports, seconds of them, are done once and not by every worker.
    """
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload([__name__])
    return context


def _watched(iterator: Iterator[Piece]) -> Generator[Piece, None, None]:
    try:
        yield from iterator
    except RuntimeError as error:
        if "exited unexpectedly" not in str(error):
            raise
        raise UserError(
            "the processes that read the pictures died: set data.feature_workers=0, or, if a script of yours started "
            'them, begin its work below `if __name__ == "__main__":`'
        ) from error


def _end_with_parent(_: int) -> None:
    """In a worker: end when the training process is killed.

    torch's own watch is for a parent that forked the worker; here that is the fork server, which outlives the other as
    long as a worker does.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent,), daemon=True).start()


def _end_after(process: Any) -> None:
    process.join()
    os._exit(1)


def _as_it_is(piece: Any) -> Any:
    return piece


class _Work(Dataset[Piece]):
    """What a worker does, by the number of the batch.

    Args:
        tower: file of the vision tower, to compute with; None: only prepare.
    """

    def __init__(
        self,
        batches: Sequence[Sequence[Entry]],
        processor: IgvaProcessor,
        config: Any,
        taps: tuple[Tap, ...],
        tower: Path | None,
    ):
        self.batches = batches
        self.processor = processor
        self.config = config
        self.taps = taps
        self.tower = tower
        self._model: IgvaModel | None = None

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Piece:
        piece = prepared(self.batches[index], self.processor)
        if self.tower and piece.pixels is not None:
            piece.means, piece.pixels = layer_means(self._loaded(self.tower), piece.pixels, self.taps), None
        return piece

    def _loaded(self, tower: Path) -> IgvaModel:
        if self._model is None:
            with torch.device("meta"):  # all but the tower stays without weights
                self._model = IgvaModel(self.config)
            # Our own file of a moment ago, in a folder that only we can write to: a whole module may be read from it.
            self._model.vision_tower = torch.load(tower, mmap=True, weights_only=False)
        return self._model


def prepared(batch: Sequence[Entry], processor: IgvaProcessor) -> Piece:
    """Decode pictures and make them the tower's input; those that cannot be read are noted."""
    keys, pictures, bad = [], [], {}
    for key, image in batch:
        try:
            pictures.append(open_image(image))
            keys.append(key)
        except UserError as error:
            bad[key] = str(error)
    return Piece(keys, processor.prepare_images(pictures) if pictures else None, None, bad)


@torch.inference_mode()
def layer_means(model: IgvaModel, pixels: Tensor, taps: Sequence[Tap]) -> VisionLayers:
    """Run the tower: ``(n, 3, height, width)`` → the means of the taps, bfloat16, on the CPU."""
    device = next(model.vision_tower.parameters()).device
    with torch.autocast(device.type, torch.bfloat16, enabled=multiplies_bfloat16(device)):
        means = model.encode_image_layers(pixels.to(device), taps)
    return means.to(device="cpu", dtype=torch.bfloat16)
