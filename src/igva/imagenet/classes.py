"""The classes as words: a few of them."""

from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class ImageClass:
    """One class: ``name`` is one of the probe's names or None, ``kinds`` what it is, the nearest first."""

    index: int
    label: str
    name: str | None
    text: str
    kinds: tuple[str, ...]
    article: str
    plural: str

    @property
    def phrase(self) -> str:
        """The label with its article."""
        return f"{self.article} {self.label}".strip()


@cache
def classes() -> tuple[ImageClass, ...]:
    """All classes, in index order."""
    rows: tuple[tuple[int, str, str | None, tuple[str, ...]], ...] = (
        (15, "robin", "bird", ("bird", "animal")),
        (84, "peacock", "peacock", ("bird", "animal")),
        (145, "king penguin", "penguin", ("bird", "animal")),
        (207, "golden retriever", "dog", ("dog", "animal")),
        (281, "tabby", "cat", ("cat", "animal")),
        (340, "zebra", "zebra", ("animal",)),
        (347, "bison", None, ("animal",)),
        (413, "assault rifle", None, ("weapon",)),
        (497, "church", "church", ("building",)),
        (546, "electric guitar", "guitar", ("instrument",)),
        (660, "igloo", None, ("building",)),
        (713, "photocopier", None, ("machine",)),
        (779, "school bus", "bus", ("bus", "vehicle")),
        (812, "space shuttle", None, ("vehicle",)),
        (889, "violin", "violin", ("instrument",)),
        (923, "plate", None, ("container",)),
        (948, "granny smith", "apple", ("apple", "fruit", "food")),
        (959, "carbonara", "spaghetti", ("food",)),
        (980, "volcano", "volcano", ()),
        (985, "daisy", None, ("flower", "plant")),
    )
    return tuple(
        ImageClass(index, label, name, f"{name}, {label}", kinds, "an" if label[0] in "aeiou" else "a", f"{label}s")
        for index, label, name, kinds in rows
    )
