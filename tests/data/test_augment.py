"""Augmentation: decided by the random state alone, small, and never mirrored or rotated."""

import random

import numpy as np
import pytest
from PIL import Image

from igva.data.augment import LEAST_AREA, augment_image


def test_the_same_state_gives_the_same_picture(picture):
    image = picture(0, 50, 30)
    first, again, other = (augment_image(image, random.Random(seed)).tobytes() for seed in ("a", "a", "b"))
    assert first == again != other


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (33, 7), (640, 480)])
def test_size_and_mode_stay(size, picture):
    for seed in range(5):
        image = augment_image(picture(1, *size), random.Random(seed))
        assert image.size == size and image.mode == "RGB"


def test_left_stays_left_and_up_stays_up():
    """A bright spot in a corner is near that corner afterwards, whatever was drawn."""
    values = np.full((60, 80, 3), 40, dtype=np.uint8)
    values[8:20, 8:24] = 255
    image = Image.fromarray(values)
    for seed in range(200):
        grey = np.asarray(augment_image(image, random.Random(seed)).convert("L"), dtype=float)
        rows, columns = np.nonzero(grey > grey.mean() + 40)
        assert rows.size and rows.max() < 30 and columns.max() < 40
        assert len(set(rows)) < len(set(columns))  # still wider than high: not turned


def test_at_least_85_percent_of_the_area_is_seen():
    """On a picture whose red channel tells the column and green the row, the corners' colours tell the crop."""
    side = 256
    ramp = np.arange(side, dtype=np.uint8)
    values = np.stack([np.tile(ramp, (side, 1)), np.tile(ramp[:, None], (1, side)), np.zeros((side, side))], axis=-1)
    image = Image.fromarray(values.astype(np.uint8))
    from igva.data.augment import _crop

    for seed in range(100):
        cropped = np.asarray(_crop(image, random.Random(seed)), dtype=float)
        width = cropped[128, -1, 0] - cropped[128, 0, 0] + 1
        height = cropped[-1, 128, 1] - cropped[0, 128, 1] + 1
        assert LEAST_AREA * side * side * 0.97 <= width * height <= side * side


def test_very_long_pictures_are_not_compressed():
    """JPEG cannot hold them."""
    image = Image.new("RGB", (70_000, 2))
    for seed in range(4):
        assert augment_image(image, random.Random(seed)).size == (70_000, 2)
