"""Pies, lines, tables and documents."""

import math
import random
from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw

from igva.probe import pack, scenes
from igva.probe.dealer import Dealer, Drawn
from igva.probe.questions import Question, phrase
from igva.probe.scenes import Scene, Thing
from igva.probe.vocabulary import COLORS, Split

FIELDS = ("price", "tax", "tip", "total")
ROWS = ("north", "south", "east", "west")
COLUMNS = ("a", "b", "c")
DIGITS = tuple("123456789")
PLACES = ("left", "middle", "right")
PIE_MARGIN = 0.1  # of the whole pie, between the slice asked for and the next


def pie(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
    """The colour of the largest or smallest slice of three or four."""
    color, which = dealer.deal("pie", tuple((color, which) for color in COLORS for which in ("largest", "smallest")))
    made = scenes.new_scene(rng, split, rng.choice([other for other in COLORS if other != color]))
    count = rng.randint(3, 4)
    while True:  # either end differs from its neighbour enough to be asked for
        cuts = sorted(rng.uniform(0.08, 0.92) for _ in range(count - 1))
        shares = sorted(b - a for a, b in zip([0.0, *cuts], [*cuts, 1.0], strict=True))
        if shares[0] >= 0.08 and min(shares[1] - shares[0], shares[-1] - shares[-2]) >= PIE_MARGIN:
            break
    answer = shares.pop() if which == "largest" else shares.pop(0)
    slices = [(color, answer), *zip(scenes.shape_colors(made, count - 1, avoid=[color]), shares, strict=True)]
    rng.shuffle(slices)
    side = rng.randint(120, 190)
    left, top = (rng.randint(scenes.MARGIN, scenes.SIZE - scenes.MARGIN - side) for _ in "xy")
    angle = rng.uniform(0, 360)
    for name, share in slices:
        large = Image.new("L", (side * 3, side * 3))
        ImageDraw.Draw(large).pieslice((0, 0, side * 3 - 1, side * 3 - 1), angle, angle + 360 * share, fill=255)
        mask = large.reduce(3)
        box = (left, top, left + side, top + side)
        made.image.paste(scenes.jitter(rng, name), box, mask)
        scenes.place(made, Thing("slice", name, name, box, share), mask, name)
        angle += 360 * share
    return made, ask_slice(made, which, color)


def ask_slice(scene: Scene, which: str, color: str) -> Question:
    """The colour of the largest or smallest slice."""
    return Question("pie", phrase(scene.rng, f"{which}_slice"), color, tuple(COLORS))


def line(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
    """Where the highest or lowest point of a line is."""
    which, place = dealer.deal("line", tuple((which, place) for which in ("highest", "lowest") for place in PLACES))
    made = scenes.new_scene(rng, split)
    heights = [rng.uniform(0.25, 0.75) for _ in range(7)]
    at = {"left": rng.choice((0, 1)), "middle": 3, "right": rng.choice((5, 6))}[place]
    heights[at] = rng.uniform(0.92, 1.0) if which == "highest" else rng.uniform(0.0, 0.08)
    left, right, top, base = (
        rng.randint(24, 34),
        224 - rng.randint(12, 24),
        rng.randint(18, 34),
        224 - rng.randint(22, 34),
    )
    ink = ink_on(made)
    points = [(left + (right - left) * i / 6, base - (base - top) * height) for i, height in enumerate(heights)]
    mask = Image.new("L", (scenes.SIZE, scenes.SIZE))
    pen = ImageDraw.Draw(mask)
    pen.line(points, fill=255, width=rng.randint(3, 6), joint="curve")
    made.image.paste(scenes.jitter(rng, ink), (0, 0), mask)
    axis = (235, 235, 235) if scenes.distance(COLORS[made.background], (0, 0, 0)) < 300 else (30, 30, 30)
    ImageDraw.Draw(made.image).line([(left - 6, top - 8), (left - 6, base + 6), (right, base + 6)], fill=axis, width=2)
    whole = (0, 0, scenes.SIZE, scenes.SIZE)
    scenes.place(made, Thing("line", "line", ink, whole, 0.0), mask, "line")
    return made, Question("line", phrase(rng, f"{which}_point"), place, PLACES)


def table(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
    """The number in a named row and column of a table of three by three."""
    digit = dealer.deal("table", DIGITS)
    made = scenes.new_scene(rng, split)
    rows = rng.sample(ROWS, 3)
    numbers = rng.sample([other for other in DIGITS if other != digit], 8)
    at = rng.randrange(9)
    numbers.insert(at, digit)
    texts = [["", *COLUMNS], *([name, *numbers[3 * i : 3 * i + 3]] for i, name in enumerate(rows))]
    top, height, left, width = rng.randint(20, 34), rng.randint(38, 44), rng.randint(8, 14), 44
    ink, face = scenes.jitter(rng, ink_on(made)), rng.choice(pack.font_files(split.fonts))
    pen = ImageDraw.Draw(made.image)
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
                cover(made, (x, y, x + width, y + height), text)
            elif text:
                cover(made, (x, y, x + (64 if c == 0 else width), y + height), text)
        if r:
            pen.line([(left, y), (left + 66 + 3 * width, y)], fill=ink)
    pen.line([(left + 62, top), (left + 62, top + 4 * height)], fill=ink)
    return made, ask_cell(made, rows, at, digit)


def ask_cell(scene: Scene, rows: Sequence[str], at: int, digit: str) -> Question:
    """The number in cell ``at`` (row by row) of a table with three columns."""
    words = {"row": rows[at // 3], "column": COLUMNS[at % 3].upper()}
    return Question("table", phrase(scene.rng, "table", **words), digit, DIGITS)


def document(rng: random.Random, split: Split, dealer: Dealer) -> Drawn:
    """A bill of four lines: the number beside one of its words."""
    field = dealer.deal("document", FIELDS)
    made = scenes.new_scene(rng, split)
    numbers = [str(number) for number in rng.sample(range(10, 100), 4)]
    ink, face = scenes.jitter(rng, ink_on(made)), rng.choice(pack.font_files(split.fonts))
    font = pack.font(face, rng.randint(22, 28))
    order = rng.sample(FIELDS, 4)
    top, height, left, right = rng.randint(12, 40), rng.randint(38, 42), rng.randint(12, 30), rng.randint(190, 212)
    pen = ImageDraw.Draw(made.image)
    for place, (name, number) in enumerate(zip(order, numbers, strict=True)):
        y = top + place * height
        pen.text((left, y + height // 2), f"{name}:", font=font, fill=ink, anchor="lm")
        pen.text((right, y + height // 2), number, font=font, fill=ink, anchor="rm")
        cover(made, (left, y, left + 80, y + height), name)
        cover(made, (right - 40, y, right, y + height), number)
    return made, ask_field(made, field, dict(zip(order, numbers, strict=True)))


def ask_field(scene: Scene, field: str, bill: Mapping[str, str]) -> Question:
    """The number beside one of the words of a bill."""
    return Question("document", phrase(scene.rng, "document", x=field), bill[field], tuple(sorted(bill.values())))


def cover(made: Scene, box: scenes.Box, word: str) -> None:
    """The cells under a written word are the word's."""
    left, top, right, bottom = (min(scenes.SIZE, max(0, edge)) for edge in box)
    mask = Image.new("L", (right - left, bottom - top), 255)
    scenes.place(
        made, Thing("text", word, None, (left, top, right, bottom), float(mask.width * mask.height)), mask, word
    )


def ink_on(made: Scene) -> str:
    """A colour that can be read on the background."""
    back = COLORS[made.background]
    return made.rng.choice([name for name in COLORS if scenes.distance(COLORS[name], back) > 190 or _only(back, name)])


def _only(back: tuple[int, int, int], name: str) -> bool:
    """Black or white, whichever is further off: there is always one."""
    far = "black" if math.dist(back, COLORS["black"]) > math.dist(back, COLORS["white"]) else "white"
    return name == far
