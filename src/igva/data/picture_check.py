"""What is to be known about one picture before training on it."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from typing import Literal

from igva.data.images import ImageSource, MissingImage, TooManyPixels, image_bytes, open_image
from igva.errors import UserError

TINY = 16  # pixels of the shorter side
LONG = 8  # the longer side by the shorter

Verdict = Literal["fine", "missing", "unreadable", "too_large"]


@dataclass(frozen=True)
class PictureFacts:
    """One picture.

    Attributes:
        reason: why it cannot be used; empty where it can.
        digest: of its encoded bytes; None where there are none.
        size: width and height in pixels; None where it cannot be used.
    """

    name: str
    verdict: Verdict
    reason: str = ""
    digest: bytes | None = None
    size: tuple[int, int] | None = None

    @property
    def tiny(self) -> bool:
        return self.size is not None and min(self.size) < TINY

    @property
    def long(self) -> bool:
        return self.size is not None and max(self.size) > LONG * min(self.size)


def check_picture(image: ImageSource) -> PictureFacts:
    """Read and decode a picture whole; nothing is raised for a bad one."""
    name = str(image)
    try:
        data = image_bytes(image)
    except MissingImage as error:
        return PictureFacts(name, "missing", str(error))
    except UserError as error:
        return PictureFacts(name, "unreadable", str(error))
    digest = hashlib.sha256(data).digest()
    try:
        return PictureFacts(name, "fine", "", digest, open_image(io.BytesIO(data), name).size)
    except TooManyPixels as error:
        return PictureFacts(name, "too_large", str(error), digest)
    except UserError as error:
        return PictureFacts(name, "unreadable", str(error), digest)
