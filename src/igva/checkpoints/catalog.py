"""The models igva knows by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from igva.checkpoints import tiny


@dataclass(frozen=True)
class CatalogEntry:
    """A named model.

    Attributes:
        licences: part → licence and origin.
        folder: gives the model's folder, fetching and converting first where needed.
        path: where that folder is or will be.
        present: whether it can be had without a network.
        verify: checks the hash of every file that was fetched, and removes what is damaged.
    """

    name: str
    description: str
    licences: dict[str, str]
    folder: Callable[[], Path]
    path: Callable[[], Path]
    present: Callable[[], bool]
    verify: Callable[[], None]


MODELS: dict[str, CatalogEntry] = {
    "tiny": CatalogEntry(
        name="tiny",
        description=tiny.DESCRIPTION,
        licences=tiny.licences(),
        folder=tiny.tiny_folder,
        path=tiny.tiny_path,
        present=tiny.tiny_present,
        verify=tiny.verify_tiny,
    ),
}
