"""Pixels of a picture: decoding, and upright RGB from whatever Pillow holds. Every path of igva comes through here."""

from __future__ import annotations

import base64
import io
import warnings
from pathlib import Path
from typing import IO

from PIL import Image, ImageChops, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
MAX_PIXELS = 64_000_000  # a 64-megapixel camera; decoding one takes about 200 MB
MAX_BYTES = 256 * 2**20  # of one encoded picture: of so many pixels, not compressed at all
MOST_PASSES = 12  # over so many pixels as are accepted: a progressive JPEG of a camera has about ten scans
LONGEST_NAME = 300
ORIENTATION = 0x0112  # the EXIF tag
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class BadImage(ValueError):
    """No picture, or none that can be read; one line that names it and the remedy."""


class TooManyPixels(BadImage):
    """A picture has more pixels than are accepted."""


class NoSuchImage(BadImage):
    """Nothing is there by that name."""


def decode(source: str | Path | IO[bytes], name: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode an encoded picture to upright RGB; of an animation the first frame is taken.

    Args:
        source: a path or a binary stream.
        name: what messages call it.
        max_pixels: width times height.

    Raises:
        BadImage: no regular file, not an image of an allowed format, damaged, empty or too large. The size is checked
            from the header, before anything is decoded, and so is how often a progressive JPEG goes over its pixels.
    """
    try:
        if isinstance(source, (str, Path)):
            check_file(Path(source), name)
        else:
            check_length(_length(source), name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit comes next
            image = Image.open(source, formats=FORMATS)
        _check_size(image, name, max_pixels)
        image.load()
        return upright_rgb(image)
    except BadImage:
        raise
    except Image.DecompressionBombError as error:
        raise TooManyPixels(
            f"{name} has too many pixels: at most {max_pixels // 1_000_000} million are accepted"
        ) from error
    except UnidentifiedImageError as error:
        raise BadImage(f"{name} is not an image igva reads: use {', '.join(FORMATS)}") from error
    except PermissionError as error:
        raise BadImage(f"{name} cannot be read: permission denied") from error
    except Exception as error:  # Pillow raises nearly anything on bytes that were not meant for it
        reason = str(error).partition("\n")[0][:200] or type(error).__name__
        raise BadImage(f"{name} is damaged or truncated ({reason}): get a fresh copy") from error


def check_file(path: Path, name: str) -> None:
    """See that a path names a file that can be read whole: no folder, pipe or device, which may never end.

    Raises:
        BadImage: it does not.
    """
    if not is_file(path):
        raise NoSuchImage(f"{name} does not exist: check the path")
    if path.is_dir():
        raise BadImage(f"{name} is a folder: name an image file in it")
    if not path.is_file():
        raise BadImage(f"{name} is no regular file: name an image file")
    length = path.stat().st_size
    if not length:  # files of /proc that never end say so too
        raise BadImage(f"{name} is empty: get a fresh copy")
    check_length(length, name)


def check_length(length: int, name: str) -> None:
    """Raise ``BadImage`` where so many encoded bytes can be no picture."""
    if length > MAX_BYTES:
        raise BadImage(f"{name} has {length:,} bytes; at most {MAX_BYTES:,} are read: is it a picture?")


def _length(stream: IO[bytes]) -> int:
    """The bytes of a stream, which is left where it was."""
    position = stream.tell()
    length = stream.seek(0, io.SEEK_END)
    stream.seek(position)
    return length


def _check_size(image: Image.Image, name: str, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise TooManyPixels(
            f"{name} has {width} × {height} pixels; at most {max_pixels // 1_000_000} million are accepted: "
            "make it smaller first"
        )
    if not width or not height:
        raise BadImage(f"{name} is empty: {width} × {height} pixels")
    if image.format == "JPEG" and ("progressive" in image.info or "progression" in image.info):
        scans = _scans(image)
        if scans * width * height > MOST_PASSES * max_pixels:
            raise TooManyPixels(f"{name} is a JPEG of {scans:,} scans: save it anew, not progressive")


def _scans(image: Image.Image) -> int:
    """How many scans a JPEG's bytes hold; what is opened is left where it was."""
    stream: IO[bytes] = image.fp  # type: ignore[attr-defined]  # while it is not loaded
    position = stream.tell()
    stream.seek(0)
    count = stream.read().count(b"\xff\xda")  # never within a scan: a 0xFF there is followed by 0 or a restart
    stream.seek(position)
    return count


def opened(item: object) -> Image.Image:
    """A picture as callers have it: opened already, an array of bytes, a path, a ``data:`` URL or base64.

    Raises:
        BadImage: ``decode`` refuses the file or the bytes, or there is no such file.
        TypeError: it is nothing of the kind.
    """
    if isinstance(item, Image.Image):
        return item
    if isinstance(item, (str, Path)):
        text = str(item)
        encoded = text.partition(";base64,")[2] if text.startswith("data:") else text
        if not text.startswith("data:") and is_file(Path(item)):
            return decode(item, text)
        try:
            return decode(io.BytesIO(base64.b64decode(encoded, validate=True)), "the picture")
        except ValueError:  # no base64 either
            raise BadImage(f"{shown(text)} does not exist: check the path") from None
    try:
        return Image.fromarray(item)  # type: ignore[arg-type]  # whatever has an array interface
    except (TypeError, ValueError, AttributeError) as error:
        raise TypeError(f"{type(item).__name__} is no picture: give a PIL image or an array of bytes") from error


def is_file(path: Path) -> bool:
    """Whether something is there by that name; a name that no file can have is none."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def shown(name: str) -> str:
    """A name for a message: what was put where a name belongs may be as long as a picture."""
    return name if len(name) <= LONGEST_NAME else f"{name[:60]}… ({len(name):,} characters)"


def upright_rgb(image: Image.Image) -> Image.Image:
    """A picture as it is meant to be seen: turned as its EXIF orientation says, transparent parts white, RGB.

    Of 16-bit grey the upper 8 bits are taken. The result says nothing of the file any more, so that doing it again
    changes nothing.
    """
    turn = _TURNS.get(_orientation(image))
    if turn is None and image.mode == "RGB" and not image.info:  # as this made it
        return image
    rgb = _rgb(image)  # always a new picture
    rgb = rgb if turn is None else rgb.transpose(turn)
    rgb.info = {}
    return rgb


def _orientation(image: Image.Image) -> int:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = image.getexif().get(ORIENTATION)
    except Exception:  # odd metadata says nothing about intact pixels
        return 1
    return value if isinstance(value, int) else 1


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;16"):  # Pillow's own conversion would clip to white
        return _of_16_bits(image).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        try:
            rgba = image.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
        except Exception:  # a transparent colour that this mode does not have
            image = image.copy()
            image.info.pop("transparency", None)
    return image.convert("RGB")


def _of_16_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits in 8; what its file calls transparent is white."""
    raw = image.convert("I").convert("I;16").tobytes()  # the lower byte first
    low, high = (Image.frombytes("L", image.size, raw[start::2]) for start in (0, 1))
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        same = [
            part.point([255 * (value == byte) for value in range(256)])
            for part, byte in ((low, clear % 256), (high, clear // 256))
        ]
        high = ImageChops.lighter(high, ImageChops.multiply(*same))
    return high
