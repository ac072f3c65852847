"""The picture that stands in for one that cannot be used."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image

from igva.data.images import StoredImage

_SIDE = 32  # of one colour, any size looks the same


def blank_image(image_processor: Any) -> StoredImage:
    """A plain picture of an image processor's mean colour: about zero once normalised."""
    mean = getattr(image_processor, "image_mean", None) or (0.5, 0.5, 0.5)
    data = io.BytesIO()
    Image.new("RGB", (_SIDE, _SIDE), tuple(round(channel * 255) for channel in mean)).save(data, "PNG")
    return StoredImage.of("the blank picture", data.getvalue())
