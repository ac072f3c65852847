"""Helpers of the contract tests: models whose outputs really depend on their inputs, and chats to ask them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from igva.testing import tiny_model, tiny_processor

from ..conftest import redraw


@pytest.fixture
def make() -> Callable[..., tuple[Any, Any]]:
    """``make(fusion, tower, language, encoder, **config)`` → a stirred tiny model and its processor."""

    def pair(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        model = redraw(tiny_model(*args, **kwargs))
        return model, tiny_processor(model)

    return pair


@pytest.fixture
def stir() -> Callable[..., Any]:
    return redraw


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
