"""Drawings that are not icons: the pack's own clip art and stamps, titled clip art, and a font of symbols."""

import io
import json
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from drawing_bank.names import further, lookup

PACK = Path(__file__).parent.parent.parent / "src" / "igva" / "probe" / "pack"
PACKED = {"openclipart": "color", "openclipart-more": "color", "stamps-drawn": "color", "stamps": "photo"}
KINDS = PACKED | {"openclipart-titled": "color", "symbola": "mono"}
CLIP_ART = Path("usr/share/openclipart/png")
SYMBOLA = Path("usr/share/fonts/truetype/ancient-scripts/Symbola_hint.ttf")
# Folders of signs, user interfaces, playing cards and other series.
SIGNS = ("computer", "logos", "shapes", "special", "decorations", "signs_and_symbols", "recreation/games/cards")
# Titles that begin with a name and are of something else.
NOT_IT = re.compile(
    r"(baby|ninja)[-_]tux|chicken_|farmer_on|orange_(burner|juice)|submarine|van_gogh|table_tennis|flower-pot|road_runner"
    r"|glass_buttons|ice_water|iris_and|nail_puller|school_hallway|wine_corks|sailor_monkey|tunnel|lamp_sergio|mosquito"
    r"|propeller|honey|scale_01|footprints|heart-ballons|knot_|antenna|firefighter|iron|map_of"
)
_TUX = {"licence": "GPL-2.0", "author": "Tux Paint's artists", "source": "Debian tuxpaint-stamps-default"}
_OCA = {
    "licence": "public domain",
    "author": "Open Clip Art Library",
    "source": "Debian openclipart-png 1:0.18+dfsg-19",
}
ABOUT: dict[str, dict[str, object]] = {
    "openclipart": dict(_OCA),
    "openclipart-more": dict(_OCA),
    "openclipart-titled": dict(_OCA),
    "stamps-drawn": dict(_TUX),
    "stamps": dict(_TUX),
    "symbola": {"licence": "free for any use", "author": "George Douros", "source": "Debian fonts-symbola 2.60-1.1"},
}


@dataclass(frozen=True)
class Sources:
    """Where the Debian packages are unpacked."""

    clip_art: Path
    symbola: Path


def read(source: str) -> Image.Image:
    """A drawing that ``drawings`` lists."""
    kind, _, rest = source.partition("|")
    if kind == "zip":
        style, _, file = rest.partition("|")
        with zipfile.ZipFile(PACK / f"{style}.zip") as archive:
            return Image.open(io.BytesIO(archive.read(file))).convert("RGBA")
    if kind == "font":
        file, _, point = rest.rpartition("|")
        font = ImageFont.truetype(file, 200)
        mask = Image.new("L", (400, 400))
        ImageDraw.Draw(mask).text((80, 60), chr(int(point)), fill=255, font=font)
        image = Image.new("RGBA", mask.size, (0, 0, 0, 255))
        image.putalpha(mask)
        return image
    return Image.open(rest).convert("RGBA")


def drawings(sources: Sources, noto: Path) -> Iterator[tuple[str, str, str]]:
    """Name, set and source of every drawing; ``noto`` is an icon set that knows its icons' code points."""
    known = {name for names in lookup(emoji=False).values() for name in names}
    for style in PACKED:
        with zipfile.ZipFile(PACK / f"{style}.zip") as archive:
            for file in archive.namelist():
                name = file.removesuffix(".webp").rpartition("-")[0]
                if name in known:
                    yield name, style, f"zip|{style}|{file}"
    yield from _titled(sources.clip_art / CLIP_ART)
    yield from _symbols(sources.symbola / SYMBOLA, noto)


def _titled(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Clip art whose file name begins with a further name."""
    for path in sorted(folder.rglob("*.png")):
        if str(path.relative_to(folder)).startswith(SIGNS) or NOT_IT.match(path.stem):
            continue
        words = re.sub(r"[^a-z]+", " ", path.stem.lower()).split()
        for number in (3, 2, 1):
            names = [name for name in lookup(emoji=False).get("-".join(words[:number]), ()) if name in further()]
            for name in names:
                yield name, "openclipart-titled", f"file|{path}"
            if names:
                break


def _symbols(font: Path, noto: Path) -> Iterator[tuple[str, str, str]]:
    """Emoji in one ink: the code points that a font of symbols and an emoji set both have."""
    opened = ImageFont.truetype(str(font), 64)
    missing = bytes(opened.getmask(chr(0x10FFFE)))
    table = lookup(emoji=True)
    for point, slug in json.loads(noto.read_text(encoding="utf-8"))["chars"].items():
        if "-" in point or slug not in table:
            continue
        mask = opened.getmask(chr(int(point, 16)))
        if mask.getbbox() is not None and bytes(mask) != missing:
            for name in table[slug]:
                yield name, "symbola", f"font|{font}|{int(point, 16)}"
