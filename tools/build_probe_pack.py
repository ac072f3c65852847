"""Build ``src/igva/probe/pack``: pictograms, clip art and photographs of everyday things, backgrounds, and fonts.

Not needed to use or train anything: the pack is committed. Run it only to change the pack. It takes
the packed npm and Debian files from one folder and needs, next to the standard library, Pillow and
``resvg-py`` (a wheel that rasterises SVG without system libraries). All parts, or those named::

    mkdir -p /tmp/packages && cd /tmp/packages
    npm pack @iconify-json/noto@1.2.9 @iconify-json/fluent-emoji@1.2.7 @iconify-json/twemoji@1.2.5 \\
        @iconify-json/noto-v1@1.2.5 @iconify-json/emojione@1.2.3 @iconify-json/fxemoji@1.2.2 \\
        @iconify-json/openmoji@1.2.29 @iconify-json/icon-park@1.2.4 @iconify-json/flat-color-icons@1.2.3 \\
        @iconify-json/game-icons@1.2.4 @iconify-json/mdi@1.2.3 @iconify-json/lucide@1.2.137 \\
        @iconify-json/streamline-freehand-color@1.2.2 @iconify-json/streamline-ultimate-color@1.2.2
    apt-get download openclipart-png fonts-go fonts-crosextra-caladea fonts-anonymous-pro fonts-breip \\
        fonts-quicksand fonts-averia-serif-gwf fonts-play fonts-liberation2 fonts-comfortaa
    apt-get download tuxpaint-stamps-default mate-backgrounds lomiri-wallpapers-16.04 lomiri-wallpapers-20.04 \\
        plasma-workspace-wallpapers
    pip install resvg-py==0.5.0
    python tools/build_probe_pack.py /tmp/packages src/igva/probe/pack [names drawings photographs fonts]
"""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from probe_pack import clip_art, fonts, icons, nouns, photographs
from probe_pack.files import MORE_QUALITY, QUALITY, write_zip

# Sets of icons.ICONS: for training, and for testing alone.
TRAIN_ICONS = ("openmoji", "icon-park", "flat-color-icons", "game-icons", "mdi", "lucide")
TEST_ICONS = ("streamline-freehand-color", "streamline-ultimate-color")


def write_json(path: Path, table: object) -> None:
    """A table as indented JSON."""
    path.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


def build_names(packages: Path, pack: Path) -> None:
    """names.json with the archives of the emoji sets and of the first clip art."""
    names = nouns.parse_names()
    files: dict[str, dict[str, list[str]]] = {name: {} for name in names}
    for style in icons.STYLES | icons.MORE_STYLES:
        archive, listed = icons.emoji(packages, style, names)
        for name, made in listed.items():
            files[name][style] = made
        write_zip(pack / f"{style}.zip", archive)
    archive = clip_art.open_clip_art(packages, "openclipart.txt", QUALITY)
    for file in archive:
        files[file.rpartition("-")[0]].setdefault("openclipart", []).append(file)
    write_zip(pack / "openclipart.zip", archive)
    for name, entry in names.items():
        del entry["slugs"]
        entry["files"] = files[name]
    write_json(pack / "names.json", names)


def build_drawings(packages: Path, pack: Path) -> None:
    """Drawings of many hands: clip art, stamps and icons for training, icons for testing."""
    more = clip_art.open_clip_art(packages, "more_openclipart.txt", MORE_QUALITY)
    write_zip(pack / "openclipart-more.zip", more)
    write_zip(pack / "stamps-drawn.zip", clip_art.drawn_stamps(packages))
    for package in TRAIN_ICONS:
        write_zip(pack / f"{package}.zip", icons.icon_set(packages, package))
    for package in TEST_ICONS:
        write_zip(pack / f"drawings-test-{package}.zip", icons.icon_set(packages, package))


def build_photographs(packages: Path, pack: Path) -> None:
    """Photographed things and backgrounds, for training and for testing, and the names that only photographs have."""
    train, test = photographs.cut_outs(packages)
    write_zip(pack / "stamps.zip", train)
    write_zip(pack / "stamps-test.zip", test)
    write_zip(pack / "backgrounds.zip", photographs.backgrounds(packages, "train"))
    write_zip(pack / "backgrounds-test.zip", photographs.backgrounds(packages, "test"))
    write_json(pack / "photos.json", nouns.parse_photo_names())


def build_fonts(packages: Path, pack: Path) -> None:
    """The folder fonts/."""
    shutil.rmtree(pack / "fonts", ignore_errors=True)
    fonts.copy_fonts(packages, pack / "fonts")


PARTS: dict[str, Callable[[Path, Path], None]] = {
    "names": build_names,
    "drawings": build_drawings,
    "photographs": build_photographs,
    "fonts": build_fonts,
}


def main(packages: Path, pack: Path, parts: list[str]) -> None:
    """Write the named parts, or all, into ``pack``."""
    pack.mkdir(parents=True, exist_ok=True)
    for part in parts or PARTS:
        PARTS[part](packages, pack)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
