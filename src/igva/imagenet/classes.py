"""The classes of ImageNet, as words: a stand-in of the shape of the full list."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class ImageClass:
    """One class: ``name`` is one of the probe's names or None, ``label`` its own everyday name."""

    index: int
    label: str
    name: str | None
    text: str
    kinds: tuple[str, ...]
    article: str
    plural: str

    @property
    def phrase(self) -> str:
        return f"{self.article} {self.label}".strip()


@cache
def classes() -> tuple[ImageClass, ...]:
    """All classes, in the order of their index."""
    rows = [("tench", "fish"), ("goldfish", "fish"), ("violin", "violin"), ("volcano", None)]
    return tuple(
        ImageClass(index, label, name, label, (), "a", f"{label}s") for index, (label, name) in enumerate(rows)
    )
