"""Drawings of many hands: the Open Clip Art Library and the drawn half of Tux Paint's stamps."""

import re
from pathlib import Path

from PIL import Image

from probe_pack.files import MORE_QUALITY, SIZE, cut_out, encode, numbered, rasterise, read_table, unpacked

HERE = Path(__file__).parent
STAMPS = "usr/share/tuxpaint/stamps"
STAMPS_TABLE = HERE / "stamps.tsv"


def read_drawing(path: Path) -> Image.Image:
    """An SVG or PNG file, cropped to what is visible, its longer side at most SIZE pixels."""
    if path.suffix == ".svg":
        # The rasteriser knows no points, which old drawings measure their canvas in.
        text = re.sub(
            r'\b(width|height)="([\d.]+)pt"',
            lambda found: f'{found[1]}="{float(found[2]) * 4 / 3:.2f}"',
            path.read_text(encoding="utf-8"),
        )
        image = rasterise(text, 4 * SIZE, 4 * SIZE)
    else:
        image = Image.open(path).convert("RGBA")
    return cut_out(image, SIZE)


def open_clip_art(packages: Path, table: str, quality: int) -> dict[str, bytes]:
    """The archive of the drawings of a table (lines "NAME PATH") of Debian's openclipart-png."""
    chosen: dict[str, list[bytes]] = {}
    with unpacked(packages, "openclipart-png") as folder:
        for line in (HERE / table).read_text(encoding="utf-8").splitlines():
            if not line.startswith("#"):
                name, path = line.split(" ", 1)
                image = read_drawing(folder / "usr/share/openclipart/png" / path)
                chosen.setdefault(name, []).append(encode(image, quality=quality))
    return numbered(chosen)


def drawn_stamps(packages: Path) -> dict[str, bytes]:
    """The archive of the drawn half of the stamps."""
    chosen: dict[str, list[bytes]] = {}
    with unpacked(packages, "tuxpaint-stamps-default") as folder:
        for kind, name, path in read_table(STAMPS_TABLE):
            if kind == "drawing":
                image = read_drawing(folder / STAMPS / path)
                chosen.setdefault(name, []).append(encode(image, quality=MORE_QUALITY))
    return numbered(chosen)
