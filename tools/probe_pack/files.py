"""Reading Debian and npm packages, rasterising, and writing the pack's archives."""

import io
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import resvg_py
from PIL import Image

SIZE = 128  # pixels of a drawing's longer side
QUALITY = 90  # of lossy WebP drawings of the sets that names.json lists
MORE_QUALITY = 82  # of those of the other sets


@contextmanager
def unpacked(packages: Path, name: str) -> Iterator[Path]:
    """The files of a Debian package, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["dpkg", "-x", str(next(packages.glob(f"{name}_*.deb"))), folder], check=True)
        yield Path(folder)


def rasterise(svg: str, width: int, height: int, **options: Any) -> Image.Image:
    """An SVG's text as pixels with alpha; raises ``ValueError`` where it is broken."""
    png = resvg_py.svg_to_bytes(svg_string=svg, width=width, height=height, **options)
    return Image.open(io.BytesIO(bytes(png))).convert("RGBA")


def cut_out(image: Image.Image, size: int) -> Image.Image:
    """What is visible of a picture with alpha, its longer side at most ``size`` pixels."""
    image = image.crop(image.getchannel("A").getbbox())
    image.thumbnail((size, size), Image.Resampling.LANCZOS)
    return image


def encode(image: Image.Image, method: int = 6, **options: object) -> bytes:
    """A picture as WebP."""
    out = io.BytesIO()
    image.save(out, "WEBP", method=method, **options)
    return out.getvalue()


def write_zip(path: Path, files: dict[str, bytes]) -> None:
    """A stored (WebP is compressed already) archive with fixed dates, so that a rebuild is byte-identical."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)


def numbered(images: dict[str, list[bytes]]) -> dict[str, bytes]:
    """The drawings of each name as files NAME-NUMBER.webp."""
    return {f"{name}-{number}.webp": data for name, made in images.items() for number, data in enumerate(made)}


def read_table(path: Path) -> list[list[str]]:
    """The tab-separated rows of a table; lines that start with # are comments."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.split("\t") for line in lines if line and not line.startswith("#")]
