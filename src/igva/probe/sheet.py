"""One picture of the whole suite: an example of every task, with its question and answer."""

from __future__ import annotations

import textwrap
from pathlib import Path

from PIL import Image, ImageDraw

from igva.errors import UserError
from igva.probe import pack
from igva.probe.suite import EVAL_CYCLE, sample
from igva.probe.vocabulary import CATEGORIES, CATEGORY_OF, SPLITS

CELL, LINE, COLUMNS = 224, 15, 6  # pixels, pixels, pictures per row


def draw_sheet(split: str, path: Path, seed: int = 0, number: int = 0) -> Path:
    """Draw example ``number`` of every task of a split into an image file; returns its path.

    Raises:
        UserError: there is no such split, or the file cannot be written.
    """
    if split not in SPLITS:
        raise UserError(f"unknown split {split!r}; use one of {', '.join(SPLITS)}")
    face = pack.font_files("train-")[0]
    body, head = pack.font(face, 12), pack.font(face, 13)
    tasks = [task for tasks in CATEGORIES.values() for task in tasks]
    rows = -(-len(tasks) // COLUMNS)
    height = CELL + 7 * LINE
    page = Image.new("RGB", (COLUMNS * (CELL + 12) + 12, rows * height + 12), (255, 255, 255))
    pen = ImageDraw.Draw(page)
    for place, task in enumerate(tasks):
        made = sample("test" if SPLITS[split].conversations else split, index_of(task, number), seed)
        (question, *_) = made.questions
        x, y = 12 + place % COLUMNS * (CELL + 12), 12 + place // COLUMNS * height
        page.paste(made.image, (x, y + LINE + 4))
        pen.text((x, y), f"{CATEGORY_OF[task]}: {task}", font=head, fill=(90, 90, 90))
        lines = [*textwrap.wrap(question.question, 34)[:4], f"= {question.answer}"]
        for number_of_line, text in enumerate(lines):
            ink = (0, 110, 50) if text.startswith("= ") else (20, 20, 20)
            pen.text((x, y + CELL + 2 * LINE + 2 + number_of_line * LINE - 8), text, font=body, fill=ink)
    try:
        page.save(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be written: {error}") from error
    return path


def index_of(task: str, number: int) -> int:
    """The index of the ``number``-th picture that an evaluation split draws for a task."""
    places = [place for place, other in enumerate(EVAL_CYCLE) if other == task]
    rounds, place = divmod(number, len(places))
    return rounds * len(EVAL_CYCLE) + places[place]
