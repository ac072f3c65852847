"""The picture that stands in for one that cannot be used."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image

from igva.data.images import StoredImage
from igva.model.processing_igva import mean_color

_SIDE = 32  # of one colour, any size looks the same


def blank_image(image_processor: Any) -> StoredImage:
    """A plain picture of an image processor's mean colour: about zero once normalised."""
    data = io.BytesIO()
    Image.new("RGB", (_SIDE, _SIDE), mean_color(image_processor)).save(data, "PNG")
    return StoredImage.of("the blank picture", data.getvalue())
