"""Pictures people really have: each is read right, or refused in one line with its name and the remedy."""

from __future__ import annotations

import io
import os
import pickle
import struct
import time
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from igva.data.images import StoredImage, image_bytes, open_image
from igva.errors import UserError
from igva.model.pixels import MAX_PIXELS


def refused(source, *words, **kwargs):
    """The message: one line, with the name and what to do."""
    with pytest.raises(UserError) as error:
        open_image(source, **kwargs)
    message = str(error.value)
    assert "\n" not in message and ": " in message
    for word in words:
        assert word in message, message
    return message


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises more than it holds."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")


def resident() -> int:
    line = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def test_missing(tmp_path):
    refused(tmp_path / "no.png", str(tmp_path / "no.png"), "does not exist", "check the path")


def test_folder(tmp_path):
    refused(str(tmp_path), str(tmp_path), "is a folder", "name an image file")


def test_not_an_image(tmp_path):
    path = tmp_path / "notes.jpg"
    path.write_text("just words")
    refused(path, str(path), "not an image igva reads", "JPEG")


def test_empty_file(tmp_path):
    path = tmp_path / "empty.png"
    path.touch()
    refused(path, str(path), "is empty", "get a fresh copy")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp"])
def test_truncated(suffix, tmp_path, picture):
    path = tmp_path / f"half.{suffix}"
    picture(0, 200, 200).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused(path, str(path), "get a fresh copy")


def test_damaged_in_the_middle(tmp_path, picture):
    path = tmp_path / "flipped.png"
    picture(0, 64, 64).save(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    refused(path, str(path), "damaged or truncated")


@pytest.mark.parametrize("size", [(40_000, 25_000), (2**31 - 1, 1_000), (9_000, 9_000)])
def test_too_many_pixels_are_refused_from_the_header(size, tmp_path):
    path = tmp_path / "huge.png"
    path.write_bytes(png_header(*size))
    before = resident()
    tracemalloc.start()
    start = time.perf_counter()
    refused(path, str(path), "pixels", "64 million")
    seconds = time.perf_counter() - start
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds < 0.1
    assert peak < 50e6 and resident() - before < 50e6


def test_the_largest_size_is_not_refused_for_its_size(tmp_path):
    side = int(MAX_PIXELS**0.5)
    refused(io.BytesIO(png_header(side, side)), "the image is damaged or truncated")
    refused(io.BytesIO(png_header(side, side + 1)), "64 million")


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)])
def test_without_pixels(size, tmp_path):
    path = tmp_path / "zero.png"
    path.write_bytes(png_header(*size))
    refused(path, str(path))


def test_not_permitted(tmp_path, picture):
    path = tmp_path / "mine.png"
    picture().save(path)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    refused(path, str(path), "permission denied")


@pytest.mark.parametrize("kind", ["TIFF", "ICO", "PPM"])
def test_formats_outside_the_list(kind, tmp_path, picture):
    path = tmp_path / f"picture.{kind.lower()}"
    picture().save(path, kind)
    refused(path, str(path), "not an image igva reads", "JPEG, PNG, WEBP, GIF, BMP")


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP"])
def test_formats_of_the_list(kind, picture):
    image = picture(1, 31, 17)
    stream = io.BytesIO()
    image.save(stream, kind, **({"lossless": True} if kind == "WEBP" else {}))
    assert open_image(io.BytesIO(stream.getvalue())).tobytes() == image.tobytes()


def test_a_suffix_decides_nothing(tmp_path, picture):
    path = tmp_path / "really_a_png.jpg"
    picture(1).save(path, "PNG")
    assert open_image(path).tobytes() == picture(1).tobytes()


def test_a_stored_picture(picture):
    """It is read only when it is opened, survives pickling, and is known by its name."""
    data = io.BytesIO()
    picture(3).save(data, "PNG")
    stored = StoredImage.of("shard.tar/a.png", data.getvalue())
    assert open_image(stored).tobytes() == picture(3).tobytes()
    copy = pickle.loads(pickle.dumps(stored))
    assert copy == stored and hash(copy) == hash(stored) and image_bytes(copy) == data.getvalue()
    assert str(stored) == "shard.tar/a.png" and "PNG" not in repr(stored)
    refused(StoredImage.of("row 3", b"words"), "row 3 is not an image igva reads")
    refused(StoredImage.of("row 3", data.getvalue()[:50]), "row 3 is damaged")

    def lost():
        raise OSError("the disk is gone")

    refused(StoredImage("row 4", lost), "row 4 cannot be read: the disk is gone")


def test_the_bytes_of_a_picture(tmp_path):
    (tmp_path / "a.png").write_bytes(b"anything")
    assert image_bytes(tmp_path / "a.png") == b"anything"
    for path, words in ((tmp_path / "b.png", "does not exist"), (tmp_path, "is a folder")):
        with pytest.raises(UserError, match=words):
            image_bytes(path)


def test_the_name_of_a_stream():
    refused(io.BytesIO(b"nothing"), "picture 3 of the request is not an image", name="picture 3 of the request")


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (6, lambda a: np.rot90(a, -1)),
        (8, lambda a: np.rot90(a)),
    ],
)
def test_exif_rotation(orientation, upright, tmp_path, picture):
    image = picture(2, 20, 10)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "turned.png", exif=exif)
    got = np.asarray(open_image(tmp_path / "turned.png"))
    assert np.array_equal(got, upright(np.asarray(image)))


def test_cmyk_jpeg(tmp_path):
    path = tmp_path / "print.jpg"
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(path, quality=95)
    image = open_image(path)
    red, green, blue = image.getpixel((8, 8))
    assert image.mode == "RGB" and red > 200 and green < 60 and blue < 60


def test_transparent_parts_become_white(tmp_path):
    image = Image.new("RGBA", (3, 1))
    image.putdata([(255, 0, 0, 255), (255, 0, 0, 0), (0, 0, 0, 51)])
    image.save(tmp_path / "clear.png")
    got = open_image(tmp_path / "clear.png")
    assert [got.getpixel((x, 0)) for x in range(3)] == [(255, 0, 0), (255, 255, 255), (204, 204, 204)]


def test_palette_with_transparency(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 255, 0, 255, 0] + [0] * 762)
    image.putdata([0, 1])
    image.save(tmp_path / "palette.png", transparency=0)
    got = open_image(tmp_path / "palette.png")
    assert [got.getpixel((x, 0)) for x in range(2)] == [(255, 255, 255), (0, 255, 0)]


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path):
    values = np.array([[0, 256, 32768, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    got = np.asarray(open_image(tmp_path / "deep.png"))[0, :, 0]
    assert got.tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize("mode", ["1", "L", "LA"])
def test_grey(mode, tmp_path):
    Image.new("L", (4, 4), 255).convert(mode).save(tmp_path / "grey.png")
    image = open_image(tmp_path / "grey.png")
    assert image.mode == "RGB" and image.getpixel((1, 1)) == (255, 255, 255)


def test_of_an_animation_the_first_frame(tmp_path):
    frames = [Image.new("RGB", (6, 6), color) for color in ("red", "lime", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:], duration=50)
    image = open_image(tmp_path / "moving.gif")
    assert image.size == (6, 6) and image.getpixel((3, 3)) == (255, 0, 0)
