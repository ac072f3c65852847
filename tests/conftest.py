"""What every test gets: no network, no progress bars, a fixed seed, one thread, and small random pictures."""

from __future__ import annotations

import os

# Before transformers and huggingface_hub are imported: they read these once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import ipaddress
import random
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image


def pytest_configure(config: pytest.Config) -> None:
    # Tiny models: a second thread only waits, and where the cores are busy it makes every kernel wait for it.
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection to anywhere but this machine is an error, not a slow test."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_loopback(str(address[0])):
            raise RuntimeError(f"a test tried to reach {address[0]}: tests run offline")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name: it would have to be looked up first
        return False


@pytest.fixture(scope="module")
def model() -> Any:
    """A random model."""
    from igva.testing import tiny_model

    return tiny_model()


@pytest.fixture(scope="module")
def processor(model: Any) -> Any:
    """That of ``model``."""
    from igva.testing import tiny_processor

    return tiny_processor(model)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model and its processor as a folder; read only."""
    from igva.testing import tiny_model, tiny_processor

    folder, model = tmp_path_factory.mktemp("model"), tiny_model()
    model.save_pretrained(folder)
    tiny_processor(model).save_pretrained(folder)
    return folder


def redraw(model: Any, seed: int = 0) -> Any:
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


@pytest.fixture(scope="session")
def ensemble() -> tuple[Any, Any]:
    """A random model whose tower is two encoders with named layers, in two groups, and its processor; read only."""
    from igva.testing import ENSEMBLE, tiny_model, tiny_processor

    model = tiny_model(tower=ENSEMBLE)
    return model, tiny_processor(model)


@pytest.fixture
def picture() -> Callable[..., Image.Image]:
    """``picture(seed, width, height)`` → random RGB; the same for the same arguments."""

    def draw(seed: int = 0, width: int = 40, height: int = 40) -> Image.Image:
        values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
        return Image.fromarray(values, "RGB")

    return draw
