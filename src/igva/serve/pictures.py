"""The pictures of a request: from where they are named to decoded ones, within the limits."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import io
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from PIL import Image

from igva.data.images import TooManyPixels, open_image
from igva.errors import UserError
from igva.serve.failure import Refusal
from igva.serve.fetch import Fetcher, too_large
from igva.serve.limits import Limits
from igva.serve.local_files import LocalFiles
from igva.serve.pieces import PIECE, pieces

MOST_QUOTED = 2**20  # characters of a data URL that is not base64: reading one takes a hundred times its memory
_WHITE = b" \t\r\n\f"  # what `base64` prints has line breaks


@dataclass(frozen=True)
class Picture:
    """An encoded picture that is known to be small enough to look at.

    Attributes:
        data: the encoded bytes.
        key: of caches: their hash. Two pictures that decode differently (size, mode, palette) have different bytes.
    """

    data: bytes
    key: str

    @classmethod
    def of(cls, data: bytes) -> Picture:
        return cls(data, hashlib.sha256(data).hexdigest())


class PictureSource:
    """Gets the bytes that an ``image_url`` names, and decodes them."""

    def __init__(self, fetcher: Fetcher, files: LocalFiles, limits: Limits):
        self.fetcher, self.files, self.limits = fetcher, files, limits

    async def get(self, url: str) -> Picture:
        """The encoded picture behind a ``data:``, ``https:``, ``http:`` or ``file:`` URL.

        Raises:
            Refusal: it may not be read, is not there, or has too many bytes.
        """
        scheme = url[:8].partition(":")[0].lower()
        if scheme == "data":
            return await asyncio.to_thread(lambda: Picture.of(self._decode_url(url)))
        if scheme in ("http", "https"):
            return Picture.of(await self.fetcher.fetch(url))
        if scheme == "file":
            return Picture.of(await asyncio.to_thread(self.files.read, url))
        raise Refusal(400, "name a picture by a data: URL (or http, https, file where they are allowed)", "image_url")

    def _decode_url(self, url: str) -> bytes:
        header, comma, body = url.partition(",")
        if not comma:
            raise Refusal(400, "the data URL is incomplete: data:image/png;base64,…", "image_url")
        if len(body) > self.limits.image_bytes * 4 // 3 + 4:
            raise too_large(self.limits)
        if not header.lower().endswith(";base64"):
            if len(body) > MOST_QUOTED:
                raise Refusal(413, "a data URL of this length has to be base64", "image_url")
            return unquote_to_bytes(body)
        try:
            return _from_base64(b"".join(piece.translate(None, _WHITE) for piece in pieces(body.encode("ascii"))))
        except (binascii.Error, ValueError):
            raise Refusal(400, "the data URL is not valid base64", "image_url") from None

    def open(self, picture: Picture) -> Image.Image:
        """Decode to upright RGB.

        Raises:
            Refusal: not a picture of an allowed format, damaged, empty, or with too many pixels (read from its header,
                before anything is decoded).
        """
        try:
            return open_image(io.BytesIO(picture.data), "the picture", self.limits.image_pixels)
        except TooManyPixels as error:
            raise Refusal(413, str(error), "image_url") from None
        except UserError as error:
            raise Refusal(400, str(error), "image_url") from None


def _from_base64(data: bytes) -> bytes:
    """Raises ``ValueError`` where it is none."""
    parts = [base64.b64decode(piece, validate=True) for piece in pieces(data)]
    if any(len(part) < PIECE // 4 * 3 for part in parts[:-1]):
        raise binascii.Error("padding before the end")
    return b"".join(parts)
