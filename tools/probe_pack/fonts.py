"""The fonts that scenes are written in."""

import shutil
from pathlib import Path

from probe_pack.files import unpacked

# file in the pack -> (Debian package, path inside it); "test-" fonts never appear in train or val.
_DIRS = "usr/share/fonts"
FONTS = {
    "train-go.ttf": ("fonts-go", f"{_DIRS}/fonts-go/Go-Regular.ttf"),
    "train-caladea.ttf": ("fonts-crosextra-caladea", f"{_DIRS}/truetype/crosextra/Caladea-Regular.ttf"),
    "train-anonymous.ttf": ("fonts-anonymous-pro", f"{_DIRS}/truetype/anonymous-pro/Anonymous Pro.ttf"),
    "train-breip.ttf": ("fonts-breip", f"{_DIRS}/truetype/breip/Breip.ttf"),
    "train-quicksand.ttf": ("fonts-quicksand", f"{_DIRS}/truetype/quicksand/Quicksand-Bold.ttf"),
    "train-averia.ttf": ("fonts-averia-serif-gwf", f"{_DIRS}/truetype/averia-gwf/AveriaSerifGWF-Bold.ttf"),
    "test-play.ttf": ("fonts-play", f"{_DIRS}/truetype/play/Play-Bold.ttf"),
    "test-liberation-serif.ttf": (
        "fonts-liberation2",
        f"{_DIRS}/truetype/liberation2/LiberationSerif-Regular.ttf",
    ),
    "test-comfortaa.ttf": ("fonts-comfortaa", f"{_DIRS}/truetype/comfortaa/Comfortaa-Bold.ttf"),
}


def copy_fonts(packages: Path, fonts: Path) -> None:
    """Unmodified font files, each package's copyright file beside them."""
    fonts.mkdir(parents=True)
    for target, (package, inside) in FONTS.items():
        with unpacked(packages, package) as folder:
            shutil.copyfile(folder / inside, fonts / target)
            shutil.copyfile(folder / "usr/share/doc" / package / "copyright", fonts / f"{package}.copyright.txt")
