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
        folder: gives the model's folder, fetching and converting first where needed.
        present: whether that would need no network.
    """

    name: str
    description: str
    licences: str
    folder: Callable[[], Path]
    present: Callable[[], bool]


MODELS: dict[str, CatalogEntry] = {
    "tiny": CatalogEntry(
        name="tiny",
        description=tiny.DESCRIPTION,
        licences=tiny.LICENCES,
        folder=tiny.tiny_folder,
        present=tiny.tiny_present,
    ),
}
