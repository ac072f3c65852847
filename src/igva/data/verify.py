"""Looks through a whole data set before it is trained on, and gathers what is wrong with it."""

from __future__ import annotations

import os
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from igva.data.dataset import estimated_tokens
from igva.data.images import ImageSource
from igva.data.labels import IGNORE, encode_supervised
from igva.data.picture_check import PictureFacts, check_picture
from igva.data.records import Record
from igva.errors import UserError
from igva.model.processing_igva import IgvaProcessor

CHUNK = 256  # samples whose pictures are looked at together; of a stream, only these are in memory
CHUNK_BYTES = 256 * 2**20  # of their pictures, where those are in memory: with so many the chunk is full


@dataclass
class Findings:
    """What a data set holds. Lists are in the order of the data.

    Attributes:
        text_only, one_picture, several_pictures, several_turns: samples of these kinds.
        sources: samples of each source.
        malformed: what is wrong with each sample that is none.
        duplicate_ids: ids of samples that an earlier sample has too.
        picture_uses: how often a sample shows a picture; ``pictures`` counts each of them once.
        missing, unreadable, too_large: why each such picture cannot be used.
        tiny, long: names of pictures with a very short side, or a very long one.
        duplicates: names of pictures whose content an earlier one has too.
        sizes: width and height of each picture that can be used.
        tokens: of each sample; from its characters alone if ``estimated``, its pictures not counted.
        over_length: ids of the samples that will be cut at ``max_length``.
        cut_pictures, nothing_learnt: what is wrong with samples of which ``max_length`` cuts a picture, or leaves
            no token to learn.
    """

    source: str
    max_length: int
    estimated: bool
    samples: int = 0
    text_only: int = 0
    one_picture: int = 0
    several_pictures: int = 0
    several_turns: int = 0
    sources: Counter[str] = field(default_factory=Counter)
    malformed: list[str] = field(default_factory=list)
    duplicate_ids: list[str] = field(default_factory=list)
    picture_uses: int = 0
    pictures: int = 0
    missing: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    too_large: list[str] = field(default_factory=list)
    tiny: list[str] = field(default_factory=list)
    long: list[str] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    over_length: list[str] = field(default_factory=list)
    cut_pictures: list[str] = field(default_factory=list)
    nothing_learnt: list[str] = field(default_factory=list)

    def broken(self) -> dict[str, list[str]]:
        """What stands in the way of training: name of the trouble → each case; only those with cases."""
        found = {
            "malformed samples": self.malformed,
            "samples with a cut picture": self.cut_pictures,
            "samples with nothing to learn": self.nothing_learnt,
            "missing pictures": self.missing,
            "unreadable pictures": self.unreadable,
            "too large pictures": self.too_large,
        }
        return {name: cases for name, cases in found.items() if cases}

    def histogram(self) -> list[tuple[int, int, int]]:
        """Samples by length: first and last number of tokens of a bin, and how many; each bin twice the last."""
        counts = Counter(tokens.bit_length() for tokens in self.tokens)
        bins = range(min(counts), max(counts) + 1) if counts else ()
        return [((1 << bits) >> 1, (1 << bits) - 1, counts[bits]) for bits in bins]

    def token_summary(self) -> dict[str, float]:
        """Least, median, mean, most and all tokens; empty where there is no sample."""
        if not self.tokens:
            return {}
        return {
            "least": min(self.tokens),
            "median": statistics.median(self.tokens),
            "mean": round(statistics.fmean(self.tokens), 1),
            "most": max(self.tokens),
            "all": sum(self.tokens),
        }

    def to_json(self) -> dict[str, Any]:
        """Plain values; lengths and sizes in sum."""
        values = {name: value for name, value in vars(self).items() if name not in ("tokens", "sizes")}
        values["tokens"] = self.token_summary()
        values["histogram"] = [{"from": low, "to": high, "samples": count} for low, high, count in self.histogram()]
        return values | {"sources": dict(self.sources), "usable": not self.broken()}


def verify(
    source: str,
    scan: Iterable[Record | UserError],
    *,
    processor: IgvaProcessor | None = None,
    chat_template: str | None = None,
    max_length: int = 2048,
) -> Findings:
    """Read every sample and decode every picture; progress on standard error.

    Args:
        source: what messages call the data.
        scan: its samples, see ``igva.data.sources.scan``.
        processor: counts the tokens; None: an estimate.

    Raises:
        UserError: the data cannot be read at all.
    """
    looker = _Looker(Findings(source, max_length, estimated=processor is None), processor, chat_template)
    with (
        ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool,
        tqdm(desc="samples", unit=" samples", delay=1) as bar,
    ):
        for chunk in _chunks(scan):
            for item in chunk:
                looker.add_sample(item)
            for facts in pool.map(check_picture, looker.new_pictures(chunk)):
                looker.add_picture(facts)
            bar.update(len(chunk))
    return looker.findings


def _chunks(scan: Iterable[Record | UserError]) -> Iterator[list[Record | UserError]]:
    chunk: list[Record | UserError] = []
    held = 0
    for item in scan:
        chunk.append(item)
        held += item.held if isinstance(item, Record) else 0
        if len(chunk) == CHUNK or held >= CHUNK_BYTES:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk


class _Looker:
    """Adds up samples and pictures."""

    def __init__(self, findings: Findings, processor: IgvaProcessor | None, chat_template: str | None):
        self.findings = findings
        self.processor = processor
        self.chat_template = chat_template
        self._ids: set[str] = set()
        self._names: set[str] = set()
        self._digests: set[bytes] = set()

    def add_sample(self, item: Record | UserError) -> None:
        found = self.findings
        if isinstance(item, UserError):
            found.malformed.append(str(item))
            return
        found.samples += 1
        found.text_only += not item.images
        found.one_picture += len(item.images) == 1
        found.several_pictures += len(item.images) > 1
        found.several_turns += sum(message["role"] == "user" for message in item.chat) > 1
        found.sources[item.source] += 1
        if item.id in self._ids:
            found.duplicate_ids.append(item.id)
        self._ids.add(item.id)
        if self.processor is None:
            found.tokens.append(estimated_tokens(item, per_image=0))
        else:
            self._add_tokens(item, self.processor)

    def _add_tokens(self, record: Record, processor: IgvaProcessor) -> None:
        found, name = self.findings, f"sample {record.id}"
        try:
            ids, labels = encode_supervised(processor, record.chat, name=name, chat_template=self.chat_template)
        except UserError as error:
            found.nothing_learnt.append(str(error))
            return
        found.tokens.append(len(ids))
        if len(ids) <= found.max_length:
            return
        found.over_length.append(record.id)
        if processor.image_token_id in ids[found.max_length :]:
            found.cut_pictures.append(
                f"{name}: {len(ids)} tokens, of which max_length {found.max_length} cuts a picture"
            )
        elif all(label == IGNORE for label in labels[: found.max_length]):
            found.nothing_learnt.append(
                f"{name}: {len(ids)} tokens, max_length {found.max_length} cuts off every answer"
            )

    def new_pictures(self, chunk: Sequence[Record | UserError]) -> Iterator[ImageSource]:
        """The pictures of some samples that were not seen before."""
        for record in chunk:
            for image in record.images if isinstance(record, Record) else ():
                self.findings.picture_uses += 1
                if (name := str(image)) not in self._names:
                    self._names.add(name)
                    yield image

    def add_picture(self, facts: PictureFacts) -> None:
        found = self.findings
        found.pictures += 1
        if facts.size is not None:
            found.sizes.append(facts.size)
        else:
            getattr(found, facts.verdict).append(facts.reason)
        for odd, names in ((facts.tiny, found.tiny), (facts.long, found.long)):
            if odd:
                names.append(facts.name)
        if facts.digest in self._digests:
            found.duplicates.append(facts.name)
        elif facts.digest is not None:
            self._digests.add(facts.digest)
