"""Reads the drawings, photographs and fonts that ship with igva (``pack/``, built by tools/build_probe_pack.py)."""

import io
import json
import zipfile
from collections.abc import Callable, Iterable
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
_LISTED = ("noto", "fluent", "noto-v1", "emojione", "fxemoji", "openclipart")  # in names.json
_MORE = (
    "openclipart-more",
    "stamps-drawn",
    "openmoji",
    "icon-park",
    "flat-color-icons",
    "game-icons",
    "mdi",
    "lucide",
)  # their files say what they show
MIXTURE = (*_LISTED, *_MORE)
# Those of ``MIXTURE`` that are drawn in one ink, black: to be given any other.
SILHOUETTES: tuple[str, ...] = ("game-icons", "mdi", "lucide")
# By hands that no training picture shows, for testing alone.
HELD_OUT_SETS: tuple[str, ...] = ("streamline-freehand-color", "streamline-ultimate-color")


@dataclass(frozen=True)
class Drawing:
    """A drawn or photographed thing cropped to its visible pixels (RGBA), and their mean colour (R, G, B), 0-255."""

    image: Image.Image
    mean: tuple[float, float, float]


def _read_nouns(table: str, files: Callable[[str], dict[str, tuple[str, ...]]]) -> dict[str, Noun]:
    rows = json.loads((PACK / table).read_text(encoding="utf-8"))
    return {
        name: Noun(
            name=name,
            plural=row["plural"],
            category=row["category"],
            article=row["article"],
            countable=row["countable"],
            kin=frozenset(row["kin"]),
            files={style: tuple(names) for style, names in row.get("files", {}).items()} | files(name),
        )
        for name, row in sorted(rows.items())
    }


@cache
def nouns() -> dict[str, Noun]:
    """All names that are drawn, in alphabetical order."""
    return _read_nouns("names.json", lambda name: {style: of[name] for style in _MORE if name in (of := _files(style))})


@cache
def photo_nouns() -> dict[str, Noun]:
    """The names that only photographs have, in alphabetical order; none of them is in ``nouns``."""
    return _read_nouns("photos.json", lambda name: {})


def noun(name: str) -> Noun:
    """A name of ``nouns`` or ``photo_nouns``; raises ``KeyError`` for any other."""
    return nouns()[name] if name in nouns() else photo_nouns()[name]


@cache
def _archive(style: str) -> dict[str, bytes]:
    # Read whole (≤ 2.3 MB): an open file handle would not survive a fork.
    with zipfile.ZipFile(PACK / f"{style}.zip") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@cache
def _files(archive: str) -> dict[str, tuple[str, ...]]:
    """The files NAME-NUMBER.webp of an archive by name, in the order of their numbers."""
    numbered: dict[str, list[tuple[int, str]]] = {}
    with zipfile.ZipFile(PACK / f"{archive}.zip") as opened:
        for file in opened.namelist():
            name, _, number = file.removesuffix(".webp").rpartition("-")
            numbered.setdefault(name, []).append((int(number), file))
    return {name: tuple(file for _, file in sorted(files)) for name, files in sorted(numbered.items())}


@cache
def drawing(style: str, file: str) -> Drawing:
    """One picture of an archive (drawings: at most 128 px a side, photographs: 192), decoded once per process."""
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
    kin, photographed = noun(name).kin, photo_nouns()
    return all(
        other != name and other not in kin and (other not in photographed or name not in photographed[other].kin)
        for other in others
    )


@cache
def drawings(style: str, name: str) -> tuple[Drawing, ...]:
    """All drawings of a name in a style: a set that has every name, or ``MIXED``."""
    files = nouns()[name].files
    return tuple(drawing(one, file) for one in (MIXTURE if style == MIXED else (style,)) for file in files.get(one, ()))


def held_out_drawings(style: str, name: str) -> tuple[Drawing, ...]:
    """The drawings of a name in one of ``HELD_OUT_SETS``, for testing alone: () where the set lacks it."""
    archive = f"drawings-test-{style}"
    return tuple(drawing(archive, file) for file in _files(archive).get(name, ()))


def photographs(name: str) -> tuple[Drawing, ...]:
    """The photographs of a name that training may show, cut out: () where there are none."""
    return tuple(drawing("stamps", file) for file in _files("stamps").get(name, ()))


def photograph_names() -> tuple[str, ...]:
    """The names that have ``photographs``, of both tables, in alphabetical order."""
    return tuple(_files("stamps"))


def held_out_photographs() -> dict[str, tuple[Drawing, ...]]:
    """The cut-outs for testing alone: one of each name that has two or more photographs."""
    return {
        name: tuple(drawing("stamps-test", file) for file in files) for name, files in _files("stamps-test").items()
    }


@cache
def backgrounds(test: bool = False) -> tuple[Image.Image, ...]:
    """Photographs without a thing of the vocabulary, 256×256 RGB; those for testing are of other photographs."""
    archive = "backgrounds-test" if test else "backgrounds"
    names = [file for files in _files(archive).values() for file in files]
    return tuple(Image.open(io.BytesIO(_archive(archive)[file])).convert("RGB") for file in names)


@cache
def font_files(prefix: str) -> tuple[Path, ...]:
    """The fonts of a split ("train-" or "test-"), in alphabetical order."""
    return tuple(sorted((PACK / "fonts").glob(f"{prefix}*.ttf")))


@cache
def font(path: Path, size: int) -> ImageFont.FreeTypeFont:
    """A font at ``size`` pixels; the basic layout engine, so that results do not depend on libraqm."""
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)
