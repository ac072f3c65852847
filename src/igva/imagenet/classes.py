"""ImageNet's 1,000 classes in everyday words: what a classifier's outputs are called.

``classes.json`` holds one class a line, in index order, in the order of ``ImageClass``'s fields. It is derived from
WordNet 3.0 (``LICENSE-wordnet.txt``) and was looked through by hand: where WordNet's hypernym is not what people call
the thing, everyday use decides.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

TABLE = Path(__file__).parent / "classes.json"


@dataclass(frozen=True)
class ImageClass:
    """One class of ImageNet-1k.

    ``index`` counts from 0, as the outputs of a classifier do. ``label`` is its everyday name in lower case, no other
    class's. ``name`` is what it would be called among the names of the probe pack (``igva.probe.pack.nouns()``), None
    where none of them fits. ``text`` is what a sentence encoder reads, the general word before the special one where
    there is a name. ``kinds`` are things it is one of, nearest first; they are true, but not all that is true.
    ``article`` is "a", "an" or "" (mass nouns and pairs), and ``plural`` its plural; both are the label's.
    """

    index: int
    label: str
    name: str | None
    text: str
    kinds: tuple[str, ...]
    article: str
    plural: str

    @property
    def phrase(self) -> str:
        """The label with its article: "a golden retriever", "jeans"."""
        return f"{self.article} {self.label}".strip()


@cache
def classes() -> tuple[ImageClass, ...]:
    """All classes in index order."""
    rows = json.loads(TABLE.read_text(encoding="utf-8"))
    return tuple(
        ImageClass(index, label, name, text, tuple(kinds), article, plural)
        for index, label, name, text, kinds, article, plural in rows
    )
