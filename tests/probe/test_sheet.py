"""The sheet shows what a split draws, and no text leaves its column."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from igva.probe import SPLITS, pack, sample, sheet, task_names
from igva.probe.edition import PHOTO_SHARES, TRAIN_CYCLE, index_of
from igva.probe.scenes import SIZE


@pytest.mark.parametrize("split", ["train", "unseen"])
def test_it_shows_the_split_and_its_text_stays_in_its_column(split: str, tmp_path: Path) -> None:
    page = np.asarray(Image.open(sheet.draw_sheet(split, tmp_path / "sheet.png", seed=3)))
    step = SIZE + sheet.GAP
    assert page.shape[1] == sheet.COLUMNS * step + sheet.GAP
    for column in range(sheet.COLUMNS + 1):
        assert (page[:, column * step : column * step + sheet.GAP] == 255).all(), f"before column {column}"
    # Every picture carries its split in the red value of its first pixel: find the first task's, and look.
    first = np.asarray(sample(split, 0, 3, tasks=("name",)).image)
    (top,) = [y for y in range(60) if np.array_equal(page[y : y + SIZE, sheet.GAP : sheet.GAP + SIZE], first)]
    assert page[top, sheet.GAP, 0] % 4 == SPLITS[split].number


def test_of_training_it_shows_pictures_made_for_photographs_too() -> None:
    titles = dict(sheet._examples("train", 0, 2))
    assert len(titles) == len(task_names()) + len(PHOTO_SHARES)
    shown = titles["For photographs: photo"].image
    assert shown.tobytes() == sample("train", index_of(TRAIN_CYCLE, "photo", 2)).image.tobytes()
    assert len(list(sheet._examples("val", 0, 0))) == len(task_names())


def test_text_is_broken_by_its_width() -> None:
    font = pack.font(pack.font_files("train-")[0], 12)
    for text in ("Which?", "WWWWW " * 12, "W" * 90, "What is in the picture, and " + "m" * 50 + " where?"):
        lines = sheet.wrapped(text, font)
        assert all(font.getlength(line) <= SIZE for line in lines)
        assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert sheet.wrapped("Which is it?", font) == ["Which is it?"]
