"""Boxes as left, top, right, bottom."""

from __future__ import annotations

from igva.data.images import ImageSource, open_image
from igva.eval.parsing import Box


def area(box: Box) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def union_share(first: Box, second: Box) -> float:
    """Intersection over union, 0..1."""
    common = area(
        (max(first[0], second[0]), max(first[1], second[1]), min(first[2], second[2]), min(first[3], second[3]))
    )
    return common / (area(first) + area(second) - common)


def to_pixels(box: Box, image: ImageSource) -> Box:
    """A box whose numbers are all at most 1 as pixels of the picture; any other is in pixels already."""
    if max(box) > 1:
        return box
    width, height = open_image(image).size
    return (box[0] * width, box[1] * height, box[2] * width, box[3] * height)
