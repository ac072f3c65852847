"""Records → samples of tensors, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from igva.data.images import open_image
from igva.data.labels import encode_supervised
from igva.data.records import Record
from igva.errors import UserError
from igva.model.processing_igva import IgvaProcessor
from igva.model.vision_layers import VisionLayers

Sample = dict[str, Any]


class ChatDataset(Dataset[Sample]):
    """Records as tensors.

    A sample has ``input_ids`` and ``labels (S,)``; with pictures either ``pixel_values (n, 3, h, w)`` or cached
    ``layer_patches (n, T, N, D)`` and ``layer_descriptors (n, T, D)``; with instructions either
    ``instruction_turns`` (texts) or ``instruction_embeds (n, E)``; ``id``, ``source`` and the number of ``images``
    for messages and figures.

    Args:
        layers: picture paths → cached layer means, or None to load the pictures.
        instructions: user turns → their mean sentence vector ``(E,)``, or None to tokenise them.
        zero_images: replace every picture by nothing (all features zero): the blind control.
    """

    def __init__(
        self,
        records: Sequence[Record],
        processor: IgvaProcessor,
        *,
        chat_template: str | None = None,
        max_length: int | None = None,
        layers: Callable[[Sequence[Any]], VisionLayers] | None = None,
        instructions: Callable[[Sequence[str]], Tensor] | None = None,
        zero_images: bool = False,
    ):
        if zero_images and layers is None:
            raise UserError("zero_images needs cached features: set cache_features=true")
        self.records = records
        self.processor = processor
        self.chat_template = chat_template
        self.max_length = max_length
        self.layers = layers
        self.instructions = instructions
        self.zero_images = zero_images

    def __len__(self) -> int:
        return len(self.records)

    def lengths(self) -> list[int]:
        """About how many tokens each sample has, from its characters: enough to batch like with like."""
        per_image = self.processor.num_image_tokens
        return [
            len(record.images) * per_image
            + sum(len(item.get("text", "")) for message in record.chat for item in message["content"]) // 4
            for record in self.records
        ]

    def __getitem__(self, index: int) -> Sample:
        record = self.records[index]
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
            self._add_images(sample, record)
        return sample

    def _add_images(self, sample: Sample, record: Record) -> None:
        if self.layers is not None:
            means = self.layers(record.images)
            scale = 0.0 if self.zero_images else 1.0
            sample["layer_patches"] = means.patches * scale
            sample["layer_descriptors"] = means.descriptors * scale
        else:
            sample["pixel_values"] = self.processor.prepare_images([open_image(path) for path in record.images])
        if self.processor.use_instructions:
            turns = self.processor.user_turns(record.chat)
            if self.instructions is not None:
                sample["instruction_embeds"] = self.instructions(turns).expand(len(record.images), -1)
            else:
                sample["instruction_turns"] = [turns] * len(record.images)
