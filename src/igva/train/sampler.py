"""Which samples make up a step, and in which order.

Pictures' samples and text-only ones in batches of their own, like lengths together, as LLaVA groups them
(``group_by_modality_length``), but decided by the seed and the epoch alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from igva.errors import UserError

MEGABATCH = 50  # batches that are sorted by length together


class StepSampler(Sampler[int]):
    """Orders an epoch so that each ``batch_size`` samples in a row are one optimizer step.

    The batches are made of a shuffled data set cut into megabatches; each megabatch is sorted by length and cut into
    batches of one modality, and the batches are shuffled. The batch with the longest sample comes first: if memory
    does not suffice, that shows at once. What does not fill a batch comes last, and only there the modalities may mix.
    A batch runs from its longest sample to its shortest, so the slices that the ranks take of it in turn are of
    like length.

    It yields ``epoch * len(self) + i``: what the data set does at random for sample ``i`` can then depend on the
    epoch, in worker processes too.

    Args:
        lengths: about how many tokens each sample has.
        has_images: whether it has pictures.
        batch_size: samples of an optimizer step over all ranks and micro-batches.
        group_by: ``modality_length``, or ``none`` for a plain shuffle.

    Raises:
        UserError: an unknown ``group_by``.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        has_images: Sequence[bool],
        batch_size: int,
        seed: int = 0,
        group_by: str = "modality_length",
    ):
        if group_by not in ("modality_length", "none"):
            raise UserError(f"data.group_by is {group_by!r}: choose modality_length or none")
        self.lengths = np.asarray(lengths)
        self.has_images = np.asarray(has_images, dtype=bool)
        self.batch_size = batch_size
        self.seed = seed
        self.group_by = group_by
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.lengths)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order = self._grouped(rng) if self.group_by == "modality_length" else rng.permutation(len(self))
        yield from (self.epoch * len(self) + order).tolist()

    def _grouped(self, rng: np.random.Generator) -> np.ndarray:
        batches: list[np.ndarray] = []
        rest: list[np.ndarray] = []
        for modality in (True, False):
            shuffled = rng.permutation(np.flatnonzero(self.has_images == modality))
            whole = len(shuffled) - len(shuffled) % self.batch_size
            batches += self._batches(shuffled[:whole])
            rest.append(shuffled[whole:])
        batches = [batches[i] for i in rng.permutation(len(batches))]
        if batches:
            longest = max(range(len(batches)), key=lambda i: self.lengths[batches[i][0]])
            batches.insert(0, batches.pop(longest))
        left = np.concatenate(rest)
        batches += [self._sorted(left[i : i + self.batch_size]) for i in range(0, len(left), self.batch_size)]
        return np.concatenate(batches)

    def _batches(self, shuffled: np.ndarray) -> list[np.ndarray]:
        """Full batches of like length. A small data set still gets four megabatches: with one, every epoch would
        put the same samples together."""
        size = self.batch_size
        mega = size * max(1, min(MEGABATCH, len(shuffled) // (4 * size)))
        batches: list[np.ndarray] = []
        for start in range(0, len(shuffled), mega):
            by_length = self._sorted(shuffled[start : start + mega])
            batches += [by_length[i : i + size] for i in range(0, len(by_length), size)]
        return batches

    def _sorted(self, samples: np.ndarray) -> np.ndarray:
        """The longest first."""
        return samples[np.argsort(-self.lengths[samples], kind="stable")]
