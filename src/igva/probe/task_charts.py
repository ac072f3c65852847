"""The category "Chart & OCR": words, bars, pies, lines, tables and documents."""

import itertools
import math
import random
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from igva.probe import drawing, pack, scenes
from igva.probe.describe import description
from igva.probe.edition import Split
from igva.probe.scenes import COLORS, Scene, Thing
from igva.probe.task_base import Dealer, Drawn, Question, Task, phrase

READ_WORDINGS = (
    "What word is written?",
    "What does the text say?",
    "Which word is written in the picture?",
    "Read the word in the image.",
    "What is the written word?",
)
BAR_WORDINGS = {
    "tallest": (
        "Which bar is the tallest?",
        "What color is the tallest bar?",
        "Which color has the highest bar?",
        "What is the color of the highest bar?",
    ),
    "shortest": (
        "Which bar is the shortest?",
        "What color is the shortest bar?",
        "Which color has the lowest bar?",
        "What is the color of the lowest bar?",
    ),
}
BARS_WORDINGS = (
    "Name the bars from left to right.",
    "Which colors do the bars have, from left to right?",
)
TALLEST_FIRST_WORDINGS = (
    "Name the bars from the tallest to the shortest.",
    "Which colors do the bars have, by height, the tallest first?",
)
SLICE_WORDINGS = {
    "largest": (
        "Which color has the largest slice?",
        "What color is the biggest slice of the pie?",
        "Which slice of the pie is the largest?",
    ),
    "smallest": (
        "Which color has the smallest slice?",
        "What color is the smallest slice of the pie?",
        "Which slice of the pie is the smallest?",
    ),
}
SLICES_WORDINGS = (
    "Name the slices from the largest to the smallest.",
    "Which colors do the slices have, by size, the largest first?",
)
POINT_WORDINGS = {
    "highest": (
        "Where is the highest point of the line: left, middle or right?",
        "In which part does the line reach its highest point, left, middle or right?",
        "Is the peak of the line on the left, in the middle or on the right?",
    ),
    "lowest": (
        "Where is the lowest point of the line: left, middle or right?",
        "In which part does the line reach its lowest point, left, middle or right?",
        "Is the lowest point of the line on the left, in the middle or on the right?",
    ),
}
CELL_WORDINGS = (
    "Which number is in row {row}, column {column}?",
    "What does the table say for {row} in column {column}?",
    "What is the value of {row} under {column}?",
)
TABLE_WORDINGS = (
    "Read the table row by row.",
    "What is written in the table?",
)
FIELD_WORDINGS = (
    "What is the {x}?",
    "Which number is the {x}?",
    "How much is the {x}?",
    "What number stands beside {x}?",
)
BILL_WORDINGS = (
    "Read the bill line by line.",
    "What is written on the bill?",
)
_WORDS = (
    "art bank big book bus city coffee cold cup dance day east exit fast fire first food free "
    "game garden gold good happy hello help home hot jazz king lake light love lunch music new "
    "night north open park peace play quiet rain river sale school shop sky slow smile snow stop "
    "summer taxi tea time water west winter zoo"
)
WORDS: tuple[str, ...] = tuple(_WORDS.split())
FIELDS = ("price", "tax", "tip", "total")
ROWS = ("north", "south", "east", "west")
COLUMNS = ("a", "b", "c")
DIGITS = tuple("123456789")
THIRDS = ("left", "middle", "right")
PIE_MARGIN = 0.1  # of the whole pie, between the slice asked for and the next
SLICE_GAP = 0.04  # of the pie, between slices that are told in order


def _draw_read(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
    word = dealer.deal("read", WORDS)
    scene = scenes.new_scene(rng, split)
    if rng.random() < 0.4:
        above = rng.random() < 0.5
        side = rng.randint(60, 96)
        top = rng.randint(10, 20) if above else scenes.SIZE - side - rng.randint(10, 20)
        left = rng.randint(scenes.MARGIN, scenes.SIZE - scenes.MARGIN - side)
        drawing.draw_objects(scene, drawing.pick_names(scene, 1), [(left, top, left + side, top + side)])
        write_word(scene, word, *((top + side + 8, scenes.SIZE - 10) if above else (10, top - 8)))
    else:
        write_word(scene, word, 16, scenes.SIZE - 16)
    return scene, Question("read", phrase(rng, READ_WORDINGS), word, WORDS)


def write_word(
    scene: Scene,
    word: str,
    top: int,
    bottom: int,
    left: int = scenes.MARGIN,
    right: int = scenes.SIZE - scenes.MARGIN,
    widths: tuple[float, float] = (0.5, 0.9),
) -> None:
    """Write ``word`` on one line inside a box (pixels), over 50-90 % of the picture's width or as wide as told."""
    rng = scene.rng
    face = rng.choice(pack.font_files(scene.split.fonts))
    text = word.upper() if rng.random() < 0.5 else word
    width = rng.uniform(*widths) * scenes.SIZE
    at_100 = pack.font(face, 100).getbbox(text)
    size = max(16, int(100 * min(width / (at_100[2] - at_100[0]), (bottom - top) / (at_100[3] - at_100[1]))))
    font = pack.font(face, size)
    west, up, east, down = (int(edge) for edge in font.getbbox(text))
    mask = Image.new("L", (east - west, down - up))
    ImageDraw.Draw(mask).text((-west, -up), text, font=font, fill=255)
    x = rng.randint(left, max(left, right - mask.width))
    y = rng.randint(top, max(top, bottom - mask.height))
    ink = rng.choice([c for c in COLORS if scenes.distance(COLORS[c], COLORS[scene.background]) > 150])
    scene.image.paste(scenes.jitter(rng, ink), (x, y), mask)
    box = (x, y, x + mask.width, y + mask.height)
    # Letters are thin: a cell belongs to the word if the line's box covers it.
    thing = Thing("word", word, ink, box, float(mask.width * mask.height))
    scene.add(thing, mask.point([255] * 256), word)


READ = Task("read", "Chart & OCR", _draw_read)


def _draw_chart(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
    color, which = dealer.deal("chart", tuple((color, which) for color in COLORS for which in ("tallest", "shortest")))
    scene = scenes.new_scene(rng, split, rng.choice([other for other in COLORS if other != color]))
    count = rng.randint(3, 4)
    while True:  # neighbours in rank differ by one at least, the answers by two from the next
        values = sorted(rng.sample(range(1, 10), count))
        if values[1] - values[0] >= 2 and values[-1] - values[-2] >= 2:
            break
    answer = values.pop() if which == "tallest" else values.pop(0)
    colors = drawing.shape_colors(scene, count - 1, avoid=[color])
    bars = [(color, answer), *zip(colors, values, strict=True)]
    rng.shuffle(bars)
    _draw_bars(scene, bars)
    return scene, _ask_bar(scene, which)


def _draw_bars(scene: Scene, bars: Sequence[tuple[str, int]]) -> None:
    """A bar chart of (colour name, value 1-9): axis, gridlines, bars standing on the axis."""
    rng = scene.rng
    draw = ImageDraw.Draw(scene.image)
    line = _axis_color(scene)
    back = np.array(COLORS[scene.background])
    grid = tuple(int(value) for value in np.rint(back * 0.7 + np.array(line) * 0.3))
    left, right = rng.randint(22, 34), scenes.SIZE - rng.randint(12, 24)
    top, base = rng.randint(16, 28), scenes.SIZE - rng.randint(20, 32)
    unit = (base - top) / 9
    for value in range(1, 10):
        y = round(base - value * unit)
        draw.line([(left, y), (right, y)], fill=grid)
    slot = (right - left - 6) / len(bars)
    width = round(slot * rng.uniform(0.6, 0.8))
    for slot_number, (color, value) in enumerate(bars):
        x = round(left + 6 + slot * slot_number + (slot - width) / 2)
        y = round(base - value * unit)
        mask = Image.new("L", (width, base - y), 255)
        scene.image.paste(scenes.jitter(rng, color), (x, y), mask)
        box = (x, y, x + width, base)
        scene.add(Thing("bar", "bar", color, box, float(width * (base - y)), value), mask, color)
    draw.line([(left, top), (left, base), (right, base)], fill=line, width=2)


def _ask_bar(scene: Scene, which: str) -> Question:
    """The colour of the tallest or shortest bar."""
    pick = max if which == "tallest" else min
    bar = pick(scene.of_kind("bar"), key=lambda thing: thing.value)
    assert bar.color is not None
    return Question("chart", phrase(scene.rng, BAR_WORDINGS[which]), bar.color, tuple(COLORS))


def _more_chart(scene: Scene) -> list[Question]:
    """Tallest and shortest bar, in either order."""
    if not scene.of_kind("bar"):
        return []
    return [_ask_bar(scene, which) for which in scene.rng.sample(("tallest", "shortest"), 2)]


def _describe_chart(scene: Scene, first: Question) -> list[Question]:
    bars = scene.of_kind("bar")
    row = [str(bar.color) for bar in sorted(bars, key=lambda bar: bar.center[0])]
    tall = [str(bar.color) for bar in sorted(bars, key=lambda bar: -bar.value)]
    return [
        description(scene, BARS_WORDINGS, ", ".join(row)),
        description(scene, TALLEST_FIRST_WORDINGS, ", ".join(tall)),
    ]


CHART = Task("chart", "Chart & OCR", _draw_chart, more=_more_chart, describe=_describe_chart)


def _draw_pie(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
    """The colour of the largest or smallest slice of three or four."""
    color, which = dealer.deal("pie", tuple((color, which) for color in COLORS for which in ("largest", "smallest")))
    scene = scenes.new_scene(rng, split, rng.choice([other for other in COLORS if other != color]))
    count = rng.randint(3, 4)
    while True:  # either end differs from its neighbour enough to be asked for
        cuts = sorted(rng.uniform(0.08, 0.92) for _ in range(count - 1))
        shares = sorted(b - a for a, b in zip([0.0, *cuts], [*cuts, 1.0], strict=True))
        if shares[0] >= 0.08 and min(shares[1] - shares[0], shares[-1] - shares[-2]) >= PIE_MARGIN:
            break
    answer = shares.pop() if which == "largest" else shares.pop(0)
    slices = [(color, answer), *zip(drawing.shape_colors(scene, count - 1, avoid=[color]), shares, strict=True)]
    rng.shuffle(slices)
    side = rng.randint(120, 190)
    left, top = (rng.randint(scenes.MARGIN, scenes.SIZE - scenes.MARGIN - side) for _ in "xy")
    angle = rng.uniform(0, 360)
    for name, share in slices:
        large = Image.new("L", (side * 3, side * 3))
        ImageDraw.Draw(large).pieslice((0, 0, side * 3 - 1, side * 3 - 1), angle, angle + 360 * share, fill=255)
        mask = large.reduce(3)
        box = (left, top, left + side, top + side)
        scene.image.paste(scenes.jitter(rng, name), box, mask)
        scene.add(Thing("slice", name, name, box, share), mask, name)
        angle += 360 * share
    return scene, _ask_slice(scene, which, color)


def _ask_slice(scene: Scene, which: str, color: str) -> Question:
    """The colour of the largest or smallest slice."""
    return Question("pie", phrase(scene.rng, SLICE_WORDINGS[which]), color, tuple(COLORS))


def _more_pie(scene: Scene) -> list[Question]:
    """The colour of the slices at either end, where they are clear."""
    slices = sorted(scene.of_kind("slice"), key=lambda thing: thing.area)
    if not slices:
        return []
    ends = {"smallest": (slices[0], slices[1]), "largest": (slices[-1], slices[-2])}
    return [
        _ask_slice(scene, which, str(end.color))
        for which, (end, following) in ends.items()
        if abs(end.area - following.area) >= PIE_MARGIN
    ]


def _describe_pie(scene: Scene, first: Question) -> list[Question]:
    slices = sorted(scene.of_kind("slice"), key=lambda thing: -thing.area)
    if any(a.area - b.area < SLICE_GAP for a, b in itertools.pairwise(slices)):
        return []
    return [description(scene, SLICES_WORDINGS, ", ".join(thing.name for thing in slices))]


PIE = Task("pie", "Chart & OCR", _draw_pie, more=_more_pie, describe=_describe_pie)


def _draw_line(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
    """Where the highest or lowest point of a line is."""
    which, third = dealer.deal("line", tuple((which, third) for which in ("highest", "lowest") for third in THIRDS))
    scene = scenes.new_scene(rng, split)
    heights = [rng.uniform(0.25, 0.75) for _ in range(7)]
    at = {"left": rng.choice((0, 1)), "middle": 3, "right": rng.choice((5, 6))}[third]
    heights[at] = rng.uniform(0.92, 1.0) if which == "highest" else rng.uniform(0.0, 0.08)
    left, right, top, base = (
        rng.randint(24, 34),
        224 - rng.randint(12, 24),
        rng.randint(18, 34),
        224 - rng.randint(22, 34),
    )
    ink = _ink_on(scene)
    points = [(left + (right - left) * i / 6, base - (base - top) * height) for i, height in enumerate(heights)]
    mask = Image.new("L", (scenes.SIZE, scenes.SIZE))
    pen = ImageDraw.Draw(mask)
    pen.line(points, fill=255, width=rng.randint(3, 6), joint="curve")
    scene.image.paste(scenes.jitter(rng, ink), (0, 0), mask)
    axis = [(left - 6, top - 8), (left - 6, base + 6), (right, base + 6)]
    ImageDraw.Draw(scene.image).line(axis, fill=_axis_color(scene), width=2)
    whole = (0, 0, scenes.SIZE, scenes.SIZE)
    scene.add(Thing("line", "line", ink, whole, 0.0), mask, "line")
    return scene, Question("line", phrase(rng, POINT_WORDINGS[which]), third, THIRDS)


LINE = Task("line", "Chart & OCR", _draw_line)


def _draw_table(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
    """The number in a named row and column of a table of three by three."""
    digit = dealer.deal("table", DIGITS)
    scene = scenes.new_scene(rng, split)
    rows = rng.sample(ROWS, 3)
    numbers = rng.sample([other for other in DIGITS if other != digit], 8)
    at = rng.randrange(9)
    numbers.insert(at, digit)
    texts = [["", *COLUMNS], *([name, *numbers[3 * i : 3 * i + 3]] for i, name in enumerate(rows))]
    top, height, left, width = rng.randint(20, 34), rng.randint(38, 44), rng.randint(8, 14), 44
    ink, face = scenes.jitter(rng, _ink_on(scene)), rng.choice(pack.font_files(split.fonts))
    pen = ImageDraw.Draw(scene.image)
    for r, row in enumerate(texts):
        y = top + r * height
        for c, text in enumerate(row):
            x = left + (0 if c == 0 else 66 + (c - 1) * width)
            size = pack.font(face, 20 if c == 0 else 24)
            pen.text(
                (x + (0 if c == 0 else width // 2), y + height // 2),
                text,
                font=size,
                fill=ink,
                anchor="lm" if c == 0 else "mm",
            )
            if c and r:
                _add_text(scene, (x, y, x + width, y + height), text)
            elif text:
                _add_text(scene, (x, y, x + (64 if c == 0 else width), y + height), text)
        if r:
            pen.line([(left, y), (left + 66 + 3 * width, y)], fill=ink)
    pen.line([(left + 62, top), (left + 62, top + 4 * height)], fill=ink)
    return scene, _ask_cell(scene, rows, at, digit)


def _ask_cell(scene: Scene, rows: Sequence[str], at: int, digit: str) -> Question:
    """The number in cell ``at`` (row by row) of a table with three columns."""
    words = {"row": rows[at // 3], "column": COLUMNS[at % 3].upper()}
    return Question("table", phrase(scene.rng, CELL_WORDINGS, **words), digit, DIGITS)


def _written(scene: Scene) -> tuple[list[str], list[str]]:
    """The names of the rows of a table, and its numbers, row by row."""
    texts = [thing.name for thing in scene.of_kind("text")]
    return [text for text in texts if text in ROWS], [text for text in texts if text in DIGITS]


def _more_table(scene: Scene) -> list[Question]:
    """Three cells of a table."""
    rows, digits = _written(scene)
    if len(rows) != 3 or len(digits) != 9:
        return []
    return [_ask_cell(scene, rows, at, digits[at]) for at in scene.rng.sample(range(9), 3)]


def _describe_table(scene: Scene, first: Question) -> list[Question]:
    rows, digits = _written(scene)
    lines = [f"{row} {' '.join(digits[3 * i : 3 * i + 3])}" for i, row in enumerate(rows)]
    return [description(scene, TABLE_WORDINGS, ", ".join(lines))]


TABLE = Task("table", "Chart & OCR", _draw_table, more=_more_table, describe=_describe_table)


def _draw_document(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
    """A bill of four lines: the number beside one of its words."""
    field = dealer.deal("document", FIELDS)
    scene = scenes.new_scene(rng, split)
    numbers = [str(number) for number in rng.sample(range(10, 100), 4)]
    ink, face = scenes.jitter(rng, _ink_on(scene)), rng.choice(pack.font_files(split.fonts))
    font = pack.font(face, rng.randint(22, 28))
    order = rng.sample(FIELDS, 4)
    top, height, left, right = rng.randint(12, 40), rng.randint(38, 42), rng.randint(12, 30), rng.randint(190, 212)
    pen = ImageDraw.Draw(scene.image)
    for line, (name, number) in enumerate(zip(order, numbers, strict=True)):
        y = top + line * height
        pen.text((left, y + height // 2), f"{name}:", font=font, fill=ink, anchor="lm")
        pen.text((right, y + height // 2), number, font=font, fill=ink, anchor="rm")
        _add_text(scene, (left, y, left + 80, y + height), name)
        _add_text(scene, (right - 40, y, right, y + height), number)
    return scene, _ask_field(scene, field, dict(zip(order, numbers, strict=True)))


def _ask_field(scene: Scene, field: str, bill: Mapping[str, str]) -> Question:
    """The number beside one of the words of a bill."""
    return Question("document", phrase(scene.rng, FIELD_WORDINGS, x=field), bill[field], tuple(sorted(bill.values())))


def _bill(scene: Scene) -> dict[str, str]:
    """The number beside each word of a bill, line by line; {} where none is drawn."""
    texts = [thing.name for thing in scene.of_kind("text")]
    return dict(zip(texts[::2], texts[1::2], strict=True)) if texts and texts[0] in FIELDS else {}


def _more_document(scene: Scene) -> list[Question]:
    """Two lines of a bill."""
    bill = _bill(scene)
    return [_ask_field(scene, field, bill) for field in scene.rng.sample(sorted(bill), min(2, len(bill)))]


def _describe_document(scene: Scene, first: Question) -> list[Question]:
    lines = [f"{field} {number}" for field, number in _bill(scene).items()]
    return [description(scene, BILL_WORDINGS, ", ".join(lines))]


DOCUMENT = Task("document", "Chart & OCR", _draw_document, more=_more_document, describe=_describe_document)


def _add_text(scene: Scene, box: scenes.Box, word: str) -> None:
    """The cells under a written word are the word's."""
    left, top, right, bottom = (min(scenes.SIZE, max(0, edge)) for edge in box)
    mask = Image.new("L", (right - left, bottom - top), 255)
    scene.add(Thing("text", word, None, (left, top, right, bottom), float(mask.width * mask.height)), mask, word)


def _axis_color(scene: Scene) -> scenes.Color:
    """Light on dark backgrounds, dark on others."""
    return (235, 235, 235) if scenes.distance(COLORS[scene.background], (0, 0, 0)) < 300 else (30, 30, 30)


def _ink_on(scene: Scene) -> str:
    """A colour that can be read on the background."""
    back = COLORS[scene.background]
    return scene.rng.choice([name for name in COLORS if scenes.distance(COLORS[name], back) > 190 or _only(back, name)])


def _only(back: tuple[int, int, int], name: str) -> bool:
    """Black or white, whichever is further off: there is always one."""
    far = "black" if math.dist(back, COLORS["black"]) > math.dist(back, COLORS["white"]) else "white"
    return name == far
