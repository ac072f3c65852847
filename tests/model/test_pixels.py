"""One picture is the same pixels whichever way it comes, and whatever is odd about its file stays there."""

from __future__ import annotations

import base64
import io
import random
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from igva.answering import user_turn
from igva.data.images import StoredImage, open_image
from igva.model.pixels import BadImage, TooManyPixels, decode, upright_rgb
from igva.testing import tiny_model, tiny_processor


def encoded(image: Image.Image, format: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def two_colours(size=(60, 30)) -> Image.Image:
    image = Image.new("RGB", size, "red")
    image.paste("blue", (0, 0, size[0] // 2, size[1]))
    return image


def palette() -> Image.Image:
    image = Image.new("P", (40, 40), 0)
    image.putpalette([0, 0, 0, 200, 30, 30] + [0] * 762)
    image.paste(1, (10, 10, 30, 30))
    return image


def logo(mode: str) -> Image.Image:
    image = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (10, 10, 30, 30))
    return image.convert(mode)


def grey16() -> Image.Image:
    return Image.fromarray(np.linspace(0, 65535, 1600).astype(np.uint16).reshape(40, 40))


PICTURES = {
    "grey of 16 bits": lambda: encoded(grey16(), "PNG"),
    "transparent": lambda: encoded(logo("RGBA"), "PNG"),
    "transparent grey": lambda: encoded(logo("LA"), "PNG"),
    "transparent palette": lambda: encoded(palette(), "PNG", transparency=0),
    "transparent animation": lambda: encoded(palette(), "GIF", transparency=0),
    "transparent photograph": lambda: encoded(logo("RGBA"), "WEBP", lossless=True),
    "a colour that is transparent": lambda: encoded(two_colours(), "PNG", transparency=(255, 0, 0)),
    "held sideways": lambda: encoded(two_colours(), "JPEG", exif=turned(6)),
    "mirrored": lambda: encoded(two_colours(), "JPEG", exif=turned(5)),
    "printed": lambda: encoded(two_colours().convert("CMYK"), "JPEG"),
    "one bit": lambda: encoded(two_colours().convert("1"), "PNG"),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_every_way_gives_the_same_pixels(kind, tmp_path):
    data, path = PICTURES[kind](), tmp_path / "picture"
    path.write_bytes(data)
    processor = tiny_processor(tiny_model())

    def pixels(item):
        turn = {"role": "user", "content": [item, {"type": "text", "text": "What?"}]}
        return processor.apply_chat_template([turn], tokenize=True, return_dict=True, return_tensors="pt")[
            "pixel_values"
        ]

    right = pixels({"type": "image", "image": open_image(path)})
    ways = {
        "stored": {"type": "image", "image": open_image(StoredImage.of("it", data))},
        "path": {"type": "image", "path": str(path)},
        "opened": {"type": "image", "image": Image.open(io.BytesIO(data))},
        "base64": {"type": "image", "base64": base64.b64encode(data).decode()},
        "answer's": user_turn("What?", [upright_rgb(Image.open(io.BytesIO(data)))])["content"][0],
        "array": {"type": "image", "image": np.asarray(open_image(path))},
    }
    for way, item in ways.items():
        assert torch.equal(pixels(item), right), way


def test_doing_it_again_changes_nothing():
    once = decode(io.BytesIO(encoded(two_colours(), "JPEG", exif=turned(6))), "it")
    assert once.size == (30, 60) and once.mode == "RGB"
    again = upright_rgb(once)
    assert again.size == once.size and again.tobytes() == once.tobytes()


def test_what_is_transparent_in_16_bits_is_white():
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + struct.pack(">2H", 40_000, 1_000) for _ in range(2))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 16, 0, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + head + chunk(b"tRNS", struct.pack(">H", 40_000)) + chunk(b"IDAT", zlib.compress(rows))
    image = decode(io.BytesIO(data + chunk(b"IEND", b"")), "it")
    assert [image.getpixel((0, 0)), image.getpixel((1, 0))] == [(255, 255, 255), (3, 3, 3)]


def with_exif(*entries: tuple[int, int, int, bytes]) -> bytes:
    """A JPEG, held sideways, with these fields besides."""
    fields = [(0x0112, 3, 1, struct.pack("<HH", 6, 0)), *entries]
    tiff = b"II*\0" + struct.pack("<IH", 8, len(fields))
    tiff += b"".join(struct.pack("<HHI", *field[:3]) + field[3] for field in fields) + struct.pack("<I", 0)
    body = b"Exif\0\0" + tiff
    data = encoded(two_colours((60, 40)), "JPEG")
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]


@pytest.mark.parametrize(
    "field",
    [
        (0x11A, 2, 3, b"72\0\0"),  # a number as text
        (0x11A, 11, 1, struct.pack("<f", float("nan"))),
        (0x8769, 4, 1, struct.pack("<I", 9_999)),  # a table that is not there
        (0x0112, 2, 2, b"x\0\0\0"),  # a second orientation
        (0x927C, 7, 4_000_000, struct.pack("<I", 8)),  # longer than the file
    ],
)
def test_odd_metadata_leaves_the_pixels_alone(field):
    image = decode(io.BytesIO(with_exif(field)), "it")
    assert sorted(image.size) == [40, 60]


def test_a_jpeg_of_very_many_scans_is_not_decoded():
    data = encoded(Image.new("L", (2000, 2000)), "JPEG", progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    decode(io.BytesIO(data), "it", max_pixels=4_000_000)
    with pytest.raises(TooManyPixels, match="scans: save it anew, not progressive"):
        decode(io.BytesIO(data[:-2] + scan * 300 + data[-2:]), "it", max_pixels=4_000_000)


@pytest.mark.parametrize("size", [(1, 20_000), (20_000, 4), (900, 18_000)])
@pytest.mark.parametrize("pad", [True, False])
def test_thin_pictures_cost_what_they_are(size, pad, monkeypatch):
    made = []
    new = Image.Image._new

    def watched(self, core):
        made.append(core.size[0] * core.size[1])
        return new(self, core)

    monkeypatch.setattr(Image.Image, "_new", watched)
    processor = tiny_processor(tiny_model())
    processor.pad_images = pad
    pixels = processor.prepare_images([Image.new("RGB", size, "red")])
    assert pixels.shape[0] == 1 and max(made) <= max(4096**2, size[0] * size[1])


@pytest.mark.parametrize("count", [300, pytest.param(5000, marks=pytest.mark.slow)])
def test_damaged_bytes_are_a_picture_or_one_line(count):
    """Mutants of every kind of picture: bytes changed, cut out, doubled, another file's in the middle."""
    rng = random.Random(0)
    whole = [make() for make in PICTURES.values()] + [with_exif((0x11A, 2, 3, b"72\0\0"))]
    whole += [encoded(two_colours(), "BMP"), encoded(two_colours(), "JPEG", progressive=True)]
    read = 0
    for number in range(count):
        data = bytearray(rng.choice(whole))
        for _ in range(rng.randint(1, 6)):
            place, length = rng.randrange(len(data)), rng.choice((1, 1, 2, 4, 30))
            match rng.randrange(4):
                case 0:
                    data[place : place + length] = rng.randbytes(length)
                case 1:
                    del data[place : place + length]
                case 2:
                    data[place:place] = data[place : place + length]
                case _:
                    data[place:place] = rng.choice(whole)[: rng.randrange(200)]
            if not data:
                break
        try:
            image = decode(io.BytesIO(bytes(data)), f"number {number}", max_pixels=4_000_000)
        except BadImage as error:
            assert "\n" not in str(error) and str(error).startswith(f"number {number} ")
        else:
            read += image.mode == "RGB"
    assert count // 20 < read < count
