"""Which pictures the server decodes, and how (S4, S5)."""

from __future__ import annotations

import asyncio
import base64
import struct
import time
import tracemalloc
import zlib

import pytest
from PIL import Image

from igva.serve.failure import Refusal
from igva.serve.fetch import Fetcher
from igva.serve.limits import Limits
from igva.serve.local_files import LocalFiles
from igva.serve.pictures import Picture, PictureSource
from igva.serve.pieces import PIECE

from .conftest import data_url, noise, png


def source(**limits):
    limits = Limits(**limits)
    return PictureSource(Fetcher(limits=limits), LocalFiles(limits=limits), limits)


def decode(data: bytes, **limits) -> Image.Image:
    each = source(**limits)
    return each.open(asyncio.run(each.get(data_url(data))))


def header_only(width: int, height: int) -> bytes:
    """A PNG that says it is this large and holds next to nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "status", "told"),
    [
        (header_only(100_000, 10_000), 413, "pixels"),
        (header_only(2**31 - 1, 2**31 - 1), 413, "pixels"),
        (header_only(0, 10), 400, "empty|damaged|not an image"),
        (noise(size=64)[:2000], 400, "damaged or truncated"),
        (noise()[:10], 400, "not an image"),
        (b"", 400, "not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 400, "not an image"),
        (b"%PDF-1.7", 400, "not an image"),
        (png(Image.new("RGB", (8, 8)), "TIFF"), 400, "not an image"),
        (png(Image.new("RGB", (8, 8)), "ICO"), 400, "not an image"),
        (png(Image.new("RGB", (8, 8)), "PPM"), 400, "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 400, "not an image"),
    ],
)
def test_refused_quickly_and_cheaply(data, status, told):
    decode(noise())  # Pillow loads its plug-ins once
    tracemalloc.start()
    start = time.perf_counter()
    with pytest.raises(Refusal, match=told) as refused:
        decode(data)
    seconds = time.perf_counter() - start
    grown = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert refused.value.status == status and "\n" not in refused.value.message
    assert seconds < 0.1 and grown < 50 * 2**20


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_formats_that_are_read(form):
    image = decode(png(Image.new("RGB", (30, 20), (200, 40, 40)), form))
    assert image.mode == "RGB" and image.size == (30, 20)
    assert all(abs(a - b) < 8 for a, b in zip(image.getpixel((15, 10)), (200, 40, 40), strict=True))


def test_unusual_pictures_decode_right():
    red = (200, 40, 40)
    palette = Image.new("RGB", (8, 8), red).convert("P", palette=Image.Palette.ADAPTIVE)
    animated = png(Image.new("RGB", (8, 8), red), "GIF", save_all=True, append_images=[Image.new("RGB", (8, 8))])
    for data in (png(palette), animated, png(Image.new("CMYK", (8, 8), (0, 204, 204, 55)), "JPEG", quality=100)):
        assert all(abs(a - b) < 12 for a, b in zip(decode(data).getpixel((4, 4)), red, strict=True))
    assert decode(png(Image.new("I;16", (8, 8), 128 * 256))).getpixel((4, 4)) == (128, 128, 128)
    assert decode(png(Image.new("RGBA", (8, 8), (0, 0, 0, 0)))).getpixel((4, 4)) == (255, 255, 255)
    turned = Image.new("RGB", (30, 20), red)
    turned.getexif()[0x0112] = 6  # to be turned by a quarter
    assert decode(png(turned, "JPEG", exif=turned.getexif())).size == (20, 30)


def test_sizes_and_broken_addresses():
    with pytest.raises(Refusal) as refused:
        decode(noise(size=64), image_bytes=1000)
    assert refused.value.status == 413
    with pytest.raises(Refusal) as refused:
        decode(noise(size=64), image_pixels=1000)
    assert refused.value.status == 413
    for url in (
        "data:image/png;base64",
        "data:image/png;base64,!!!!",
        "data:image/png;base64,AAA",
        "picture.png",
        "/etc/passwd",
        "javascript:alert(1)",
        "",
        "https://pictures.example/a.png",
        "file:///etc/passwd",
    ):
        with pytest.raises(Refusal) as refused:
            asyncio.run(source().get(url))
        assert refused.value.status == 400


def test_data_urls_come_in_two_forms():
    plain = "data:image/png," + "".join(f"%{byte:02x}" for byte in noise())
    assert asyncio.run(source().get(plain)).data == noise()
    with pytest.raises(Refusal, match="has to be base64"):
        asyncio.run(source().get("data:image/png," + "%41" * 350_000))
    upper = "DATA:image/png;BASE64," + base64.b64encode(noise()).decode()
    assert asyncio.run(source().get(upper)).data == noise()


def test_base64_of_more_than_one_piece():
    """It is decoded piece by piece, and still one text: padding stands at its end alone, white space anywhere."""
    data = noise(size=200)
    text = base64.b64encode(data).decode()
    assert len(text) > 2 * PIECE
    for broken_up in (text, "\n".join(text[i : i + 76] for i in range(0, len(text), 76))):
        assert asyncio.run(source().get(f"data:image/png;base64,{broken_up}")).data == data
    for wrong in (text[: PIECE - 1] + "=" + text[PIECE:], text[: PIECE + 3] + "=" * 2 + text[PIECE + 5 :], text[:-1]):
        with pytest.raises(Refusal, match="not valid base64"):
            asyncio.run(source().get(f"data:image/png;base64,{wrong}"))


def test_pictures_that_decode_differently_have_different_keys():
    """W × H swapped, another mode, another palette (S10)."""
    wide = Image.effect_noise((16, 8), 50)
    tall = Image.frombytes("L", (8, 16), wide.tobytes())
    palettes = [Image.frombytes("P", (16, 8), wide.tobytes()) for _ in range(2)]
    for image, first in zip(palettes, (0, 1), strict=True):
        image.putpalette([value for i in range(256) for value in (i, i, (i + first) % 256)])
    pictures = [wide, tall, wide.convert("RGB"), *palettes]
    assert len({Picture.of(png(image)).key for image in pictures}) == len(pictures)
