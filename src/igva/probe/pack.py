"""Reads the pictograms and fonts that ship with igva (``pack/``, built by tools/build_probe_pack.py)."""

import io
import json
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageFont

PACK = Path(__file__).parent / "pack"


@dataclass(frozen=True)
class Noun:
    """One thing that can be drawn.

    ``article`` is "a", "an" or "" (mass nouns); ``countable`` is false where one drawing may show
    several; ``kin`` are names that could be said of this drawing too ("bird" of a dove), so the two
    never meet in one picture or question; ``files`` has the drawings of each set, and some sets lack some names.
    """

    name: str
    plural: str
    category: str
    article: str
    countable: bool
    kin: frozenset[str]
    files: dict[str, tuple[str, ...]]

    @property
    def phrase(self) -> str:
        """The name with its article: "an owl", "bread"."""
        return f"{self.article} {self.name}".strip()


# Sets that have every name, and sets that have some, which only join the others in the style "mixed".
WHOLE = ("noto", "fluent", "twemoji")
MIXED = "mixed"
MIXTURE = ("noto", "fluent", "noto-v1", "emojione", "fxemoji", "openclipart")
SILHOUETTES: tuple[str, ...] = ()  # sets of one colour, whose ink the drawer chooses


@dataclass(frozen=True)
class Drawing:
    """A pictogram cropped to its visible pixels, and their mean colour (R, G, B), 0-255."""

    image: Image.Image
    mean: tuple[float, float, float]


@cache
def nouns() -> dict[str, Noun]:
    """All names, in alphabetical order."""
    table = json.loads((PACK / "names.json").read_text(encoding="utf-8"))
    return {
        name: Noun(
            name=name,
            plural=row["plural"],
            category=row["category"],
            article=row["article"],
            countable=row["countable"],
            kin=frozenset(row["kin"]),
            files={style: tuple(files) for style, files in row["files"].items()},
        )
        for name, row in sorted(table.items())
    }


@cache
def _archive(style: str) -> dict[str, bytes]:
    # Read whole (≤ 2.3 MB): an open file handle would not survive a fork.
    with zipfile.ZipFile(PACK / f"{style}.zip") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@cache
def drawing(style: str, file: str) -> Drawing:
    """One pictogram (RGBA, at most 128 px a side), decoded once per process."""
    image = Image.open(io.BytesIO(_archive(style)[file])).convert("RGBA")
    # Faint shadows count as background: a box around them would misstate size and position.
    solid = image.getchannel("A").point([255 if value > 40 else 0 for value in range(256)])
    image = image.crop(solid.getbbox())
    pixels = np.asarray(image, dtype=np.float64)
    alpha = pixels[..., 3]
    mean = (pixels[..., :3] * alpha[..., None]).sum(axis=(0, 1)) / alpha.sum()
    return Drawing(image, (float(mean[0]), float(mean[1]), float(mean[2])))


def apart(name: str, others: Iterable[str]) -> bool:
    """Whether a name is none of the others, nor kin to one of them: no drawing could be called both."""
    kin = noun(name).kin
    return all(other != name and other not in kin and name not in noun(other).kin for other in others)


@cache
def photo_nouns() -> dict[str, Noun]:
    """The names that only photographs have."""
    return {"pumpkin": Noun("pumpkin", "pumpkins", "food", "a", True, frozenset(), {})}


def noun(name: str) -> Noun:
    """A name of either table."""
    return nouns()[name] if name in nouns() else photo_nouns()[name]


@cache
def photograph_names() -> tuple[str, ...]:
    """The names of which there are photographs."""
    return ("apple", "banana", "bus", "car", "cat", "dog", "elephant", "guitar", "hammer", "pumpkin", "rose", "violin")


@cache
def photographs(name: str) -> tuple[Drawing, ...]:
    """The photographic cut-outs of a name."""
    if name not in photograph_names():
        return ()
    return drawings("openclipart", "peach" if name == "pumpkin" else name) or drawings("noto", name)


@cache
def backgrounds(test: bool = False) -> tuple[Image.Image, ...]:
    """Photographs to put things before, 256×256 RGB."""
    made = []
    for number in range(4):
        noise = np.random.default_rng(number + 10 * test).integers(0, 256, (12, 12, 3), dtype=np.uint8)
        made.append(Image.fromarray(noise).resize((256, 256), Image.Resampling.BICUBIC))
    return tuple(made)


@cache
def drawings(style: str, name: str) -> tuple[Drawing, ...]:
    """All drawings of a name in a style: a set that has every name, or ``MIXED``."""
    files = nouns()[name].files
    return tuple(drawing(one, file) for one in (MIXTURE if style == MIXED else (style,)) for file in files.get(one, ()))


@cache
def font_files(prefix: str) -> tuple[Path, ...]:
    """The fonts of a split ("train-" or "test-"), in alphabetical order."""
    return tuple(sorted((PACK / "fonts").glob(f"{prefix}*.ttf")))


@cache
def font(path: Path, size: int) -> ImageFont.FreeTypeFont:
    """A font at ``size`` pixels; the basic layout engine, so that results do not depend on libraqm."""
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)
