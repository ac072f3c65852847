"""Helpers of the contract tests: models whose outputs really depend on their inputs, and chats to ask them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from PIL import Image

from igva.testing import tiny_model, tiny_processor


def _stir(model: Any, seed: int = 0) -> Any:
    """Redraw every weight with a spread that lets pictures and questions reach the logits.

    Freshly initialised towers differ by 0.02 and answer everything alike: nothing that goes wrong would show.
    """
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=draw)
            if parameter.dim() > 1:
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
            else:
                parameter.add_(0.1 * noise)
    return model


@pytest.fixture
def make() -> Callable[..., tuple[Any, Any]]:
    """``make(fusion, tower, language, encoder, **config)`` → a stirred tiny model and its processor."""

    def pair(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        model = _stir(tiny_model(*args, **kwargs))
        return model, tiny_processor(model)

    return pair


@pytest.fixture
def stir() -> Callable[..., Any]:
    return _stir


@pytest.fixture
def user() -> Callable[..., list[dict[str, Any]]]:
    """``user(question, *pictures)`` → a chat of one turn."""

    def chat(question: str, *pictures: Image.Image) -> list[dict[str, Any]]:
        content = [{"type": "image", "image": p} for p in pictures] + [{"type": "text", "text": question}]
        return [{"role": "user", "content": content}]

    return chat


@pytest.fixture
def encode() -> Callable[..., Any]:
    """``encode(processor, chats, **options)`` → the model's inputs, padded, as PyTorch tensors."""

    def run(processor: Any, chats: Any, **options: Any) -> Any:
        options = {"add_generation_prompt": True, "padding": True, **options}
        return processor.apply_chat_template(chats, tokenize=True, return_dict=True, return_tensors="pt", **options)

    return run
