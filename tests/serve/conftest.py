"""A real server on loopback, in a thread of its own; its model is tiny and random."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
import torch
from PIL import Image

from igva.serve.app import Settings, create_app
from igva.serve.limits import Limits
from igva.serve.run import bind, server
from igva.testing import tiny_model, tiny_processor

from ..conftest import redraw

LIMITS = Limits(active=4, waiting=8, new_tokens=64)


def stirred(**kwargs: Any) -> tuple[Any, Any]:
    """A tiny model whose answers depend on pictures and questions, and never end by themselves."""
    model = redraw(tiny_model(**kwargs))
    return model.eval(), tiny_processor(model)


@pytest.fixture(scope="session")
def small() -> tuple[Any, Any]:
    return stirred()


@contextmanager
def serving(app: Any, limits: Limits = LIMITS) -> Iterator[str]:
    """The application behind a port → its address."""
    listener = bind("127.0.0.1", 0)
    running = server(app, "critical", limits)
    running.config.timeout_graceful_shutdown = 1
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not running.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        running.should_exit = True
        thread.join(20)


@pytest.fixture(scope="session")
def url(small: tuple[Any, Any]) -> Iterator[str]:
    """A server with its defaults."""
    with serving(create_app(*small, Settings("small", limits=LIMITS))) as address:
        yield address


@pytest.fixture
def serve(small: tuple[Any, Any]) -> Iterator[Callable[..., str]]:
    """``serve(settings, fetcher, files)`` → the address of a server with these."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        yield lambda *args, **kwargs: stack.enter_context(serving(create_app(*small, *args, **kwargs)))


def png(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    """An encoded picture."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def data_url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def noise(seed: int = 0, size: int = 32) -> bytes:
    """A PNG of random dots."""
    raw = torch.randint(0, 256, (size, size, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return png(Image.fromarray(raw.numpy()))


def chat(question: str = "What?", *urls: str, **fields: Any) -> dict[str, Any]:
    """The body of a request with one user turn."""
    content = [{"type": "image_url", "image_url": {"url": each}} for each in urls]
    return {
        "model": "small",
        "messages": [{"role": "user", "content": [*content, {"type": "text", "text": question}]}],
        "max_tokens": 8,
        "temperature": 0,
        **fields,
    }


def ask(url: str, body: dict[str, Any], **options: Any) -> httpx.Response:
    return httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60, **options)


def said(url: str, body: dict[str, Any]) -> str:
    """The answer's text."""
    response = ask(url, body)
    assert response.status_code == 200, response.text
    return str(response.json()["choices"][0]["message"]["content"])


def events(response: httpx.Response) -> list[dict[str, Any]]:
    """The chunks of a stream; its last line must be ``[DONE]``."""
    lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def metric(url: str, name: str) -> float:
    """One of the server's counters."""
    text = httpx.get(f"{url}/metrics").text
    return float(next(line.split()[-1] for line in text.splitlines() if line.startswith(f"{name} ")))
