"""The parts of the photos suite: which pictures each shows, and what it asks about them.

A part is a function that writes its pictures below ``folder/IMAGES`` and returns the entries of its ``questions.json``.
A more general name (bird for an owl) counts as wrong, as in the probe suite; ``also`` in ``photos/pictures.json`` has
the few answers that are as right as the first.
"""

from __future__ import annotations

import json
import random
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from igva.probe import pack
from igva.probe.facts import USES
from igva.probe.scenes import COLORS, MARGIN, SIZE, distance
from igva.probe.task_base import Dealer, stream
from igva.probe.task_general import NAME_WORDINGS
from igva.probe.task_hallucination import EXISTS_WORDINGS
from igva.probe.task_knowledge import USE_WORDINGS

PHOTOS = Path(__file__).parent / "photos"
IMAGES = "images"
SHOWINGS = 2  # of each held-out cut-out
CAP = 150  # names of a drawing set
SEED = "photos"
STANDS_OUT = 70  # from the background, in the distance of scenes
HIDDEN = 0.1  # of a drawing, at most: ink of the background's colour does not show

ANIMAL = ("What animal is this?", "Which animal is shown here?", "What animal does the picture show?")

Entry = dict[str, Any]


@dataclass(frozen=True)
class Photo:
    """A whole photograph.

    Attributes:
        part: "skimage", "whole", or "new" where no name of the probe suite would be right.
        also: other answers that are as right as ``name``.
        absent: something alike that is not in the picture; empty for "new".
    """

    file: str
    part: str
    name: str
    also: tuple[str, ...] = ()
    absent: str = ""


def photos(*parts: str) -> list[Photo]:
    """The whole photographs of some parts, in the order of their table."""
    table = json.loads((PHOTOS / "pictures.json").read_text(encoding="utf-8"))
    return [Photo(**{**row, "also": tuple(row.get("also", ()))}) for row in table if row["part"] in parts]


def whole(folder: Path) -> list[Entry]:
    """Whole photographs, each of one thing that has a name in the probe suite."""
    entries: list[Entry] = []
    for number, photo in enumerate(_copied(folder, photos("skimage", "whole"))):
        task = "scikit-image" if photo.part == "skimage" else "packages"
        entries.append(
            _entry(
                "whole",
                task,
                photo.file,
                _dealt("name", NAME_WORDINGS, number),
                photo.name,
                tuple(pack.nouns()),
                photo.also,
            )
        )
    return entries


def cutouts(folder: Path) -> list[Entry]:
    """Cut-outs of photographs that training never saw, on photographs that it never saw."""
    backgrounds = pack.backgrounds(test=True)
    choices = tuple(sorted({*pack.nouns(), *pack.photo_nouns()}))
    entries: list[Entry] = []
    for name, drawings in sorted(pack.held_out_photographs().items()):
        for which, drawing in enumerate(drawings):
            for showing in range(SHOWINGS):
                number = len(entries)
                rng = stream(SEED, "cutouts", name, which, showing)
                index = Dealer(0, SEED, number).deal("background", tuple(range(len(backgrounds))))
                image = backgrounds[index].convert("RGB").resize((SIZE, SIZE), Image.Resampling.LANCZOS)
                _paste(rng, image, drawing.image, rng.uniform(0.45, 0.9))
                file = _saved(folder, f"{name}-{which}-{showing}", image)
                task = "cutouts" if name in pack.nouns() else "cutouts_new"
                entries.append(_entry("cutouts", task, file, _dealt("name", NAME_WORDINGS, number), name, choices))
    return entries


def hands(folder: Path) -> list[Entry]:
    """Drawing sets that training never saw, on one colour; each set is a task."""
    entries: list[Entry] = []
    for style in pack.HELD_OUT_SETS:
        names = [name for name in pack.nouns() if pack.held_out_drawings(style, name)]
        for name in spread(names, CAP):
            rng = stream(SEED, "hands", style, name)
            drawing = rng.choice(pack.held_out_drawings(style, name))
            image = Image.new("RGB", (SIZE, SIZE), rng.choice(clear_colors(drawing.image)))
            _paste(rng, image, drawing.image, rng.uniform(0.5, 0.9))
            file = _saved(folder, f"{style}-{name}", image)
            entries.append(
                _entry("hands", style, file, _dealt("name", NAME_WORDINGS, len(entries)), name, tuple(pack.nouns()))
            )
    return entries


def open_questions(folder: Path) -> list[Entry]:
    """Which animal, what it is for, whether something is there, asked about the photographs of ``whole``; and the
    names of things that the probe suite has no name for, some of which training shows as cut-outs."""
    known = _copied(folder, photos("skimage", "whole"))
    table = pack.nouns()
    animals = tuple(name for name, noun in table.items() if noun.category == "animal")
    purposes = {name: use for use, names in USES.items() for name in names}
    entries: list[Entry] = []
    for number, photo in enumerate(photo for photo in known if photo.name in animals):
        entries.append(_entry("open", "animal", photo.file, _dealt("animal", ANIMAL, number), photo.name, animals))
    for number, photo in enumerate(photo for photo in known if photo.name in purposes):
        wording = _dealt("use", USE_WORDINGS, number)
        entries.append(_entry("open", "use", photo.file, wording, purposes[photo.name], tuple(USES)))
    for number, photo in enumerate(known):
        for answer, name in (("yes", photo.name), ("no", photo.absent)):
            wording = _dealt("exists", EXISTS_WORDINGS, number).format(a=table[name].phrase)
            entries.append(_entry("open", "exists", photo.file, wording, answer, ("yes", "no"), what=answer))
    for number, photo in enumerate(_copied(folder, photos("new"))):
        task = "new_names_shown" if photo.name in pack.photo_nouns() else "new_names"
        entries.append(
            _entry("open", task, photo.file, _dealt("name", NAME_WORDINGS, number), photo.name, also=photo.also)
        )
    return entries


PARTS: dict[str, Callable[[Path], list[Entry]]] = {
    "whole": whole,
    "cutouts": cutouts,
    "hands": hands,
    "open": open_questions,
}


def spread(names: Sequence[str], count: int) -> list[str]:
    """At most ``count`` of the names, evenly far apart in their order."""
    return [names[index * len(names) // count] for index in range(count)] if len(names) > count else list(names)


def clear_colors(drawing: Image.Image) -> list[tuple[int, int, int]]:
    """The colours on which at most ``HIDDEN`` of a drawing (RGBA) is lost; the one on which least is, if there is none.

    Counted pixel by pixel, not by the mean colour: black outlines are lost on black, whatever they are filled with.
    """
    small = drawing.copy()
    small.thumbnail((32, 32))
    inks = [pixel[:3] for pixel in np.asarray(small).reshape(-1, 4).tolist() if pixel[3] > 127]
    lost = {c: sum(distance(ink, c) < STANDS_OUT for ink in inks) / max(1, len(inks)) for c in COLORS.values()}
    return [color for color, share in lost.items() if share <= HIDDEN] or [min(lost, key=lost.__getitem__)]


def _entry(
    part: str,
    task: str,
    file: str,
    question: str,
    answer: str,
    choices: tuple[str, ...] = (),
    also: tuple[str, ...] = (),
    what: str = "",
) -> Entry:
    return {
        "id": "-".join(filter(None, (part, task, Path(file).stem, what))),
        "image": f"{IMAGES}/{file}",
        "question": question,
        "answer": answer,
        "answers": [answer, *also],
        "choices": list(choices),
        "task": task,
        "category": part,
    }


def _dealt(key: str, wordings: tuple[str, ...], number: int) -> str:
    """One of the ways to put a kind of question; each comes equally often."""
    wording: str = Dealer(0, SEED, number).deal(key, wordings)
    return wording


def _copied(folder: Path, chosen: Iterable[Photo]) -> list[Photo]:
    """The photographs, their files written into the folder as they are."""
    listed = list(chosen)
    with zipfile.ZipFile(PHOTOS / "pictures.zip") as archive:
        for photo in listed:
            (folder / IMAGES / photo.file).write_bytes(archive.read(photo.file))
    return listed


def _saved(folder: Path, stem: str, image: Image.Image) -> str:
    """The name of the file that an image is written to."""
    image.save(folder / IMAGES / f"{stem}.png")
    return f"{stem}.png"


def _paste(rng: random.Random, image: Image.Image, drawing: Image.Image, share: float) -> None:
    """Put a drawing anywhere on a square image, its longer side a share of the image's."""
    scale = share * image.width / max(drawing.size)
    width, height = (max(1, round(length * scale)) for length in drawing.size)
    scaled = drawing.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=2.0)
    right, bottom = image.width - MARGIN - width, image.height - MARGIN - height
    corner = (rng.randint(MARGIN, right), rng.randint(MARGIN, bottom))
    image.paste(scaled.convert("RGB"), corner, scaled.getchannel("A"))
