"""Photographs: things cut out (Tux Paint's stamps), and backgrounds to put them on (Debian's wallpapers)."""

import random
from pathlib import Path

from PIL import Image

from probe_pack.clip_art import STAMPS, STAMPS_TABLE
from probe_pack.files import cut_out, encode, numbered, read_table, unpacked

LONGEST = 192  # pixels of a cut-out's longer side
CUT_OUT_QUALITY = 80
SIDE = 256  # pixels of a background
CROPS = {"train": 6, "test": 4}  # of each photograph
BACKGROUND_QUALITY = 70
BACKGROUNDS = Path(__file__).parent / "backgrounds.tsv"


def cut_outs(packages: Path) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """The archives of photographed things for training and for testing: the last of each name's, where it has two."""
    chosen: dict[str, list[bytes]] = {}
    with unpacked(packages, "tuxpaint-stamps-default") as folder:
        for kind, name, path in read_table(STAMPS_TABLE):
            if kind == "photo":
                image = cut_out(Image.open(folder / STAMPS / path).convert("RGBA"), LONGEST)
                chosen.setdefault(name, []).append(encode(image, quality=CUT_OUT_QUALITY))
    held_out = {name: [images.pop()] for name, images in chosen.items() if len(images) > 1}
    return numbered(chosen), numbered(held_out)


def crops(photo: Image.Image, area: list[float], count: int, seed: str) -> list[Image.Image]:
    """Square pieces of the part of a photograph that ``area`` bounds (left, top, right, bottom, shares of it)."""
    rng = random.Random(seed)
    left, top, right, bottom = (round(share * side) for share, side in zip(area, photo.size * 2, strict=True))
    made = []
    for _ in range(count):
        # Never enlarged where the photograph allows it.
        longest = min(right - left, bottom - top)
        side = rng.randint(max(min(SIDE, longest), round(0.4 * longest)), longest)
        x, y = rng.randint(left, right - side), rng.randint(top, bottom - side)
        made.append(photo.resize((SIDE, SIDE), Image.Resampling.LANCZOS, (x, y, x + side, y + side)))
    return made


def backgrounds(packages: Path, split: str) -> dict[str, bytes]:
    """The archive of the backgrounds of a split ("train" or "test")."""
    rows = read_table(BACKGROUNDS)
    chosen: dict[str, list[bytes]] = {}
    for package in sorted({row[1] for row in rows}):
        with unpacked(packages, package) as folder:
            for _, _, path, area in (row for row in rows if row[:2] == [split, package]):
                photo = Image.open(folder / path).convert("RGB")
                name = Path(path.split("/contents/")[0]).stem.lower()
                for piece in crops(photo, [float(edge) for edge in area.split()], CROPS[split], name):
                    chosen.setdefault(name, []).append(encode(piece, quality=BACKGROUND_QUALITY))
    return numbered(chosen)
