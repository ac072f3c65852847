"""One picture of a whole split: an example of everything that it is drawn for, with its question and answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from igva.errors import UserError
from igva.probe import edition, pack
from igva.probe.scenes import SIZE
from igva.probe.suite import ProbeSample, sample
from igva.probe.tasks import categories

LINE, GAP, COLUMNS = 15, 12, 6  # pixels, pixels, pictures per row
GRAY, BLACK, GREEN = (90, 90, 90), (20, 20, 20), (0, 110, 50)


def draw_sheet(split: str, path: Path, seed: int = 0, number: int = 0) -> Path:
    """Draw example ``number`` of every task, as a split draws it, into an image file; of training also its pictures
    made for photographs. Returns the path.

    Raises:
        UserError: there is no such split, or the file cannot be written.
    """
    columns = [_column(title, example) for title, example in _examples(split, seed, number)]
    rows = [columns[first : first + COLUMNS] for first in range(0, len(columns), COLUMNS)]
    heights = [max(column.height for column in row) for row in rows]
    page = Image.new("RGB", (COLUMNS * (SIZE + GAP) + GAP, sum(heights) + GAP * (len(rows) + 1)), (255, 255, 255))
    top = GAP
    for row, height in zip(rows, heights, strict=True):
        for number_in_row, column in enumerate(row):
            page.paste(column, (GAP + number_in_row * (SIZE + GAP), top))
        top += height + GAP
    try:
        page.save(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be written: {error}") from error
    return path


def _examples(split: str, seed: int, number: int) -> Iterator[tuple[str, ProbeSample]]:
    """What is shown, each with its title."""
    cycle = edition.cycle_of(split)
    for category, tasks in categories().items():
        for task in tasks:
            yield f"{category}: {task}", sample(split, number, seed, tasks=(task,))
    for kind in edition.PHOTO_SHARES:
        if kind in cycle:
            yield f"For photographs: {kind}", sample(split, edition.index_of(cycle, kind, number), seed)


def _column(title: str, example: ProbeSample) -> Image.Image:
    """A picture between its title and its first question with the answer, as wide as the picture."""
    face = pack.font_files("train-")[0]
    head, body = pack.font(face, 13), pack.font(face, 12)
    titles = wrapped(title, head)
    first = example.conversations[0]
    asked = first.turns[0].question + (" (imagined)" if first.imagined else "")
    lines = [*((text, BLACK) for text in wrapped(asked, body))]
    lines += [(text, GREEN) for text in wrapped(f"= {first.turns[0].answer}", body)]
    above = LINE * len(titles) + 4
    column = Image.new("RGB", (SIZE, above + SIZE + 4 + LINE * len(lines)), (255, 255, 255))
    pen = ImageDraw.Draw(column)
    for number, text in enumerate(titles):
        pen.text((0, LINE * number), text, font=head, fill=GRAY)
    column.paste(example.image, (0, above))
    for number, (text, ink) in enumerate(lines):
        pen.text((0, above + SIZE + 4 + LINE * number), text, font=body, fill=ink)
    return column


def wrapped(text: str, font: ImageFont.FreeTypeFont, width: int = SIZE) -> list[str]:
    """The text in lines of at most ``width`` pixels, broken between words; a word that is wider is broken itself."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:
            if font.getlength(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
    return lines
