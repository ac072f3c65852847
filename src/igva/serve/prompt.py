"""A chat and its pictures → what the engine needs, before its turn comes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from igva.model.processing_igva import IgvaProcessor
from igva.model.vision_layers import VisionLayers
from igva.serve.failure import Refusal
from igva.serve.layer_store import LayerStore
from igva.serve.pictures import Picture


@dataclass
class Prompt:
    """A chat as the model takes it.

    Attributes:
        ids: tokens, with every picture's placeholders.
        instruction: ``instruction_input_ids`` and ``instruction_attention_mask``, ``(I, T, S)``; empty without pictures
            or for models that take none.
        keys: of the pictures, in their order.
        pixels: key → ``(1, 3, height, width)`` of the pictures whose layer means are not known yet.
        layers: key → layer means, of those that are.
    """

    ids: list[int]
    instruction: dict[str, Tensor]
    keys: list[str]
    pixels: dict[str, Tensor]
    layers: dict[str, VisionLayers]


class PromptMaker:
    """Makes prompts from any thread; one at a time, since fast tokenizers are not made for more.

    Args:
        store: of the layer means; known pictures are neither decoded nor prepared again.
        decode: encoded picture → decoded one.
        most_characters: of a chat's texts; what reading them costs is known only once it is done.
    """

    def __init__(
        self,
        processor: IgvaProcessor,
        store: LayerStore,
        decode: Callable[[Picture], Image.Image],
        most_characters: int | None = None,
    ):
        self.processor, self.store, self.decode = processor, store, decode
        self.most_characters = most_characters
        self._lock = Lock()

    def make(self, chat: list[dict[str, Any]], pictures: Sequence[Picture]) -> Prompt:
        """The prompt of a chat whose pictures stand in its messages in this order.

        Raises:
            Refusal: a picture cannot be decoded, or the chat template does not take such a chat.
        """
        self._check_length(chat)
        layers, pixels = {}, {}
        for picture in {picture.key: picture for picture in pictures}.values():
            known = self.store.get(picture.key)
            if known is not None:
                layers[picture.key] = known
            else:
                pixels[picture.key] = self.prepare(picture)
        with self._lock:
            ids = self._tokens(chat)
            instruction = self._instruction(chat, len(pictures))
        return Prompt(ids, instruction, [picture.key for picture in pictures], pixels, layers)

    def _check_length(self, chat: list[dict[str, Any]]) -> None:
        if self.most_characters is None:
            return
        length = sum(len(item.get("text", "")) for message in chat for item in message["content"])
        if length > self.most_characters:
            raise Refusal(
                400,
                f"the messages have {length:,} characters: more than {self.most_characters:,} cannot fit the model",
                "messages",
                "context_length_exceeded",
            )

    def prepare(self, picture: Picture) -> Tensor:
        """``pixel_values (1, 3, height, width)``."""
        pixels: Tensor = self.processor.prepare_images([self.decode(picture)])
        return pixels

    def _tokens(self, chat: list[dict[str, Any]]) -> list[int]:
        try:
            ids = self.processor.chat_tokens(chat, add_generation_prompt=True)
        except ValueError as error:
            system = any(message["role"] == "system" for message in chat)
            raise Refusal(400, f"{error}{': leave the system message out' * system}", "messages") from None
        return self.processor.expand_placeholders(ids)

    def _instruction(self, chat: list[dict[str, Any]], pictures: int) -> dict[str, Tensor]:
        if not pictures or not self.processor.use_instructions:
            return {}
        rows = self.processor.encode_instructions([self.processor.user_turns(chat)])
        return {name: torch.tensor(value * pictures) for name, value in rows.items()}
