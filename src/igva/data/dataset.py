"""Records → samples of tensors: by number, or as a stream."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import islice

from torch.utils.data import Dataset, IterableDataset, get_worker_info

from igva.data.imagined import FIELD, Imagination
from igva.data.records import Record, strict
from igva.data.samples import CachedInstructions, CachedLayers, Policy, Sample, SampleBuilder, sample_errors
from igva.data.webdataset import RecordStream, scan_shard
from igva.model.processing_igva import IgvaProcessor

__all__ = ["ChatDataset", "ChatStream", "Sample"]

SHUFFLE_BUFFER = 256  # records of a stream, with the bytes of their pictures, that wait in memory
SHUFFLE_BYTES = 2**30  # of these pictures: with so many, fewer records wait
_Placed = tuple[tuple[int, int], Record]  # a record, the number of its shard and its own in it


class ChatDataset(Dataset[Sample]):
    """Records by number.

    Index ``epoch * len(dataset) + i`` is record ``i`` in that epoch. What is random about a sample depends on the
    seed, the epoch and ``i`` alone, so neither the number of data loading processes nor a resume changes it.

    Args:
        layers, instructions, imagination, zero_images, on_bad_image, augment, seed, …: see ``SampleBuilder``.
    """

    def __init__(
        self,
        records: Sequence[Record],
        processor: IgvaProcessor,
        *,
        chat_template: str | None = None,
        max_length: int | None = None,
        layers: CachedLayers | None = None,
        instructions: CachedInstructions | None = None,
        imagination: Imagination | None = None,
        zero_images: bool = False,
        on_bad_image: Policy = "fail",
        augment: bool = False,
        seed: int = 0,
    ):
        self.records = records
        self.processor = processor
        self.build = SampleBuilder(
            processor,
            chat_template=chat_template,
            max_length=max_length,
            layers=layers,
            instructions=instructions,
            imagination=imagination,
            zero_images=zero_images,
            on_bad_image=on_bad_image,
            augment=augment,
            seed=seed,
        )

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Sample:
        epoch, i = divmod(index, len(self.records))
        with sample_errors():
            return self.build(self.records[i], epoch, i)

    def __iter__(self) -> Iterator[Sample]:
        """One epoch; by indices alone, of which all are valid, it would never end."""
        return (self[i] for i in range(len(self)))

    def lengths(self) -> list[int]:
        """About how many tokens each sample has, from its characters: enough to batch like with like."""
        return [estimated_tokens(record, self.processor.num_image_tokens) for record in self.records]

    def modalities(self) -> list[bool]:
        """Which records have pictures."""
        return [bool(record.images) for record in self.records]


class ChatStream(IterableDataset[Sample]):
    """The records of shards, once an epoch, in an order that the seed and the epoch decide.

    Each of ``world_size`` ranks and, within a rank, each data loading process gets a part of the records; together
    they get every record once. The processes of a rank share the shards among them, or, where there are fewer shards
    than processes, the records. Ranks share the records, so that they get as many each, give or take one per process.

    Args:
        imagined: False leaves out the records that imagine a class.
        rank, world_size: leave them where something else (such as accelerate) deals the samples out to the ranks.
        on_bad_image, augment, seed, …: see ``SampleBuilder``.
    """

    def __init__(
        self,
        stream: RecordStream,
        processor: IgvaProcessor,
        *,
        chat_template: str | None = None,
        max_length: int | None = None,
        on_bad_image: Policy = "fail",
        augment: bool = False,
        seed: int = 0,
        imagined: bool = True,
        rank: int = 0,
        world_size: int = 1,
    ):
        self.stream = stream
        self.seed = seed
        self.imagined = imagined
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self.build = SampleBuilder(
            processor,
            chat_template=chat_template,
            max_length=max_length,
            on_bad_image=on_bad_image,
            augment=augment,
            seed=seed,
        )

    def set_epoch(self, epoch: int) -> None:
        """Choose the order and the augmentation of an epoch, before iterating."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Sample]:
        """Samples; raises ``SampleError`` for what ``SampleBuilder`` raises and for a malformed record."""
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        part = f"{self.rank}/{self.world_size} {worker}/{workers}"
        order = random.Random(f"{self.seed} {self.epoch} {part}")
        with sample_errors():
            for position, record in _shuffled(self._part(worker, workers), order):
                yield self.build(record, self.epoch, position)

    def _part(self, worker: int, workers: int) -> Iterator[_Placed]:
        """This process's records and where they stand: number of the shard, number in it."""
        shards = list(enumerate(self.stream.shards))
        random.Random(f"{self.seed} {self.epoch}").shuffle(shards)
        by_record = len(shards) < workers
        records = (
            ((number, row), record)
            for number, shard in (shards if by_record else shards[worker::workers])
            for row, record in enumerate(strict(scan_shard(shard)))
            if self.imagined or FIELD not in record.extra
        )
        first = self.rank * workers + worker if by_record else self.rank
        return islice(records, first, None, self.world_size * (workers if by_record else 1))


def estimated_tokens(record: Record, per_image: int) -> int:
    """About how many tokens a record has: its pictures', and one for four characters."""
    texts = (item.get("text", "") for message in record.chat for item in message["content"])
    return len(record.images) * per_image + sum(map(len, texts)) // 4


def _shuffled(items: Iterator[_Placed], rng: random.Random, size: int = SHUFFLE_BUFFER) -> Iterator[_Placed]:
    """The items in another order: each next one changes places with a random one of those that wait."""
    waiting: list[_Placed] = []
    held = 0
    for item in items:
        held += item[1].held
        waiting.append(item)
        while len(waiting) > size or (held > SHUFFLE_BYTES and len(waiting) > 1):
            i = rng.randrange(len(waiting) - 1)
            waiting[i], waiting[-1] = waiting[-1], waiting[i]
            held -= waiting[-1][1].held
            yield waiting.pop()
    rng.shuffle(waiting)
    yield from waiting
