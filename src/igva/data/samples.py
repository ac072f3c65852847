"""One record → one sample of tensors, bad pictures and augmentation included."""

from __future__ import annotations

import random
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Protocol

from torch import Tensor

from igva.data.augment import augment_image
from igva.data.blank import blank_image
from igva.data.images import ImageSource, open_image
from igva.data.imagined import REMEDY, Imagination, imagined_of
from igva.data.labels import IGNORE, encode_supervised
from igva.data.records import Record
from igva.errors import UserError
from igva.model.processing_igva import IgvaProcessor
from igva.model.vision_layers import VisionLayers

# ``input_ids`` and ``labels (S,)``; with pictures either ``pixel_values (n, 3, h, w)`` or cached ``layer_patches
# (n, T, N, D)`` and ``layer_descriptors (n, T, D)``; with instructions either ``instruction_turns`` (texts) or
# ``instruction_embeds (n, E)``; for messages and figures ``id``, ``source`` and the number of ``images``; where
# pictures could not be used ``bad_images``, their names, and ``skipped`` if the sample is not to be learnt.
Sample = dict[str, Any]
Policy = Literal["fail", "skip", "replace"]


class CachedLayers(Protocol):
    """Layer means computed beforehand."""

    @property
    def bad(self) -> Mapping[str, str]:
        """Pictures that could not be read: name → why."""

    def __call__(self, images: Sequence[ImageSource], /) -> VisionLayers: ...


class CachedInstructions(Protocol):
    """User turns → their mean sentence vector ``(E,)``."""

    def __call__(self, turns: Sequence[str], /) -> Tensor: ...


class SampleError(UserError):
    """What is wrong with a sample, in one line also where it comes out of a data loading process.

    Such a process hands over an exception as its printed traceback, from which torch makes a new one of the same
    class; the message is its last line.
    """

    def __init__(self, message: str):
        super().__init__(message.strip().rpartition(f"{type(self).__module__}.{type(self).__qualname__}: ")[2])


@contextmanager
def sample_errors() -> Iterator[None]:
    """A ``UserError`` from within becomes a ``SampleError``."""
    try:
        yield
    except UserError as error:
        raise SampleError(str(error)) from error


class SampleBuilder:
    """Makes samples of records.

    Args:
        chat_template: in place of the tokenizer's.
        max_length: longer samples are cut.
        layers: cached layer means, or None to load the pictures.
        instructions: cached sentence vectors, or None to tokenise the turns.
        imagination: for records that imagine a class; without it these are an error.
        zero_images: all features are zero: the blind control.
        on_bad_image: what becomes of a picture that cannot be read. ``fail``: an error that names the sample.
            ``replace``: a plain picture of the mean colour takes its place. ``skip``: the same, and no token of the
            sample is learnt.
        augment: change pictures a little, see ``augment_image``.
        seed: of the augmentation.

    Raises:
        UserError: settings that exclude each other.
    """

    def __init__(
        self,
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
        if zero_images and layers is None:
            raise UserError("zero_images needs cached features: set cache_features=true")
        if augment and layers is not None:
            raise UserError("cached features cannot be augmented: set augment=false or cache_features=false")
        if on_bad_image not in ("fail", "skip", "replace"):
            raise UserError(f"on_bad_image is {on_bad_image!r}: choose fail, skip or replace")
        self.processor = processor
        self.chat_template = chat_template
        self.max_length = max_length
        self.layers = layers
        self.instructions = instructions
        self.imagination = imagination
        self.zero_images = zero_images
        self.on_bad_image = on_bad_image
        self.augment = augment
        self.seed = seed
        self.blank = blank_image(processor.image_processor)

    def __call__(self, record: Record, epoch: int = 0, position: Hashable = 0) -> Sample:
        """One sample.

        Args:
            epoch, position: with the seed, all that the augmentation depends on.

        Raises:
            UserError: a picture cannot be used and the policy is ``fail``; the template does not fit; nothing is
                left to learn; a class is to be imagined that cannot be.
        """
        rng = random.Random(f"{self.seed} {epoch} {position}")
        ids, labels = encode_supervised(
            self.processor,
            record.chat,
            name=f"sample {record.id}",
            chat_template=self.chat_template,
            max_length=self.max_length,
        )
        sample: Sample = {"input_ids": ids, "labels": labels, "source": record.source, "id": record.id}
        sample["images"] = len(record.images)
        if record.images:
            if self.layers is None:
                bad = self._add_pixels(sample, record, rng)
            else:
                bad = self._add_layers(sample, record, self.layers)
            self._add_instructions(sample, record)
            if bad:
                self._apply_policy(sample, bad)
        return sample

    def _add_pixels(self, sample: Sample, record: Record, rng: random.Random) -> dict[str, str]:
        """Load the pictures; those that cannot be read are blank. Gives these: name → why."""
        if imagined_of(record) is not None:
            raise UserError(
                f"sample {record.id}: a class can only be imagined on cached features: set data.cache_features=true, "
                f"or {REMEDY}"
            )
        pictures, bad = [], {}
        for image in record.images:
            try:
                picture = open_image(image)
                pictures.append(augment_image(picture, rng) if self.augment else picture)
            except UserError as error:
                bad[str(image)] = str(error)
                pictures.append(open_image(self.blank))
        sample["pixel_values"] = self.processor.prepare_images(pictures)
        return bad

    def _add_layers(self, sample: Sample, record: Record, layers: CachedLayers) -> dict[str, str]:
        """The same from the cache."""
        bad = {str(image): layers.bad[str(image)] for image in record.images if str(image) in layers.bad}
        means = layers([self.blank if str(image) in bad else image for image in record.images])
        if (imagined := imagined_of(record)) is not None:
            if self.imagination is None:
                raise UserError(f"sample {record.id}: it imagines a class, which needs a words layer: {REMEDY}")
            means = self.imagination(means, imagined)
        scale = 0.0 if self.zero_images else 1.0
        sample["layer_patches"] = means.patches * scale
        sample["layer_descriptors"] = means.descriptors * scale
        return bad

    def _add_instructions(self, sample: Sample, record: Record) -> None:
        if self.processor.use_instructions:
            turns = self.processor.user_turns(record.chat)
            if self.instructions is not None:
                sample["instruction_embeds"] = self.instructions(turns).expand(len(record.images), -1)
            else:
                sample["instruction_turns"] = [turns] * len(record.images)

    def _apply_policy(self, sample: Sample, bad: dict[str, str]) -> None:
        if self.on_bad_image == "fail":
            raise UserError(f"sample {sample['id']}: {next(iter(bad.values()))}, or set data.on_bad_image")
        sample["bad_images"] = list(bad)
        if self.on_bad_image == "skip":
            sample["labels"] = [IGNORE] * len(sample["labels"])
            sample["skipped"] = True
