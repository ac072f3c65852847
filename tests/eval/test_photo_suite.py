"""The photos suite: whose its pictures are, what it asks, and that it is the same each time."""

import hashlib
import io
import json
import re
import zipfile
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from igva.data.questions import read_questions
from igva.eval import photo_parts, photo_suite
from igva.eval.metrics import check_questions
from igva.probe import pack
from igva.probe.facts import USES
from igva.probe.scenes import COLORS, SIZE, distance
from igva.probe.task_general import NAME_WORDINGS

ROOT = Path(__file__).parents[2]
TEN = ["brick", "camera", "chelsea", "clock_motion", "coffee", "coins", "horse", "moon", "motorcycle_left", "rocket"]
FREE = ("CC0-1.0", "CC-BY-2.0", "CC-BY 4.0", "CC-BY-SA-4.0", "public domain", "no known copyright restrictions")
PART_OF = ("Apache-2.0 as part of", "BSD-3-Clause as part of")


def notice_rows():
    lines = (photo_parts.PHOTOS / "NOTICE.md").read_text(encoding="utf-8").split("\n")
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("| ")][1:]


def pictures():
    with zipfile.ZipFile(photo_parts.PHOTOS / "pictures.zip") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def entries(split, folder):
    photo_suite.draw(split, folder)
    return json.loads((folder / "questions.json").read_text(encoding="utf-8"))


def content(folder):
    """The folder's files, hashed."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def a_drawing(color, size):
    image = Image.new("RGBA", size, (*color, 255))
    return pack.Drawing(image, tuple(map(float, color)))


@pytest.fixture
def few(monkeypatch):
    """Two cut-outs, two sets of drawings and three backgrounds in place of the pack's."""
    held = {"owl": (a_drawing((200, 30, 30), (80, 40)),), "mug": (a_drawing((30, 200, 30), (40, 80)),)}
    sets = {
        "pen": {name: (a_drawing((250, 250, 250), (64, 64)),) for name in ("owl", "car", "bee")},
        "ink": {"owl": (a_drawing((10, 10, 10), (64, 32)), a_drawing((20, 20, 20), (32, 64)))},
    }
    backs = tuple(Image.new("RGB", (256, 256), (shade, 90, 120)) for shade in (0, 60, 120))
    monkeypatch.setattr(pack, "held_out_photographs", lambda: held)
    monkeypatch.setattr(pack, "photo_nouns", lambda: {"mug": None})
    monkeypatch.setattr(pack, "backgrounds", lambda test: backs if test else ())
    monkeypatch.setattr(pack, "HELD_OUT_SETS", tuple(sets))
    monkeypatch.setattr(pack, "held_out_drawings", lambda style, name: sets[style].get(name, ()))
    return sets


# --- what ships -----------------------------------------------------------------------------------------------------


def test_every_picture_has_an_author_a_free_licence_and_a_package():
    rows = {row[0]: row for row in notice_rows()}
    assert (
        sorted(rows)
        == sorted(pictures())
        == sorted(photo.file for photo in photo_parts.photos("skimage", "whole", "new"))
    )
    for photo in photo_parts.photos("skimage", "whole", "new"):
        _, shows, author, licence, source, package, path = rows[photo.file]
        assert shows == photo.name and author and source and path
        assert licence in FREE or licence.lower() in FREE or licence.startswith(PART_OF), licence
        assert re.fullmatch(r"\S+ \d\S+", package), package


def test_the_table_of_the_tool_is_what_ships():
    lines = (ROOT / "tools" / "photos.tsv").read_text(encoding="utf-8").splitlines()
    rows = [tuple(line.split("\t")[:4]) for line in lines if not line.startswith("#")]
    photos = photo_parts.photos("skimage", "whole", "new")
    assert rows == [(photo.part, photo.name, "|".join(photo.also), photo.absent) for photo in photos]


def test_pictures_are_small():
    total = 0
    for name, data in pictures().items():
        image = Image.open(io.BytesIO(data))
        total += len(data)
        assert max(image.size) <= 320 and image.mode == "RGB" and image.format == "WEBP", name
    assert total < 1.2e6


def test_enough_of_enough_names():
    whole = photo_parts.photos("skimage", "whole")
    assert len(whole) >= 45 and len({photo.name for photo in whole}) >= 40
    assert all(photo.name in pack.nouns() and {*photo.also} <= {*pack.nouns()} for photo in whole)
    assert [Path(photo.file).stem for photo in photo_parts.photos("skimage")] == [
        f"scikit-image-{name}" for name in TEN
    ]


def test_what_is_asked_for_and_absent_is_alike_and_no_kin():
    for photo in photo_parts.photos("skimage", "whole"):
        assert photo.absent in pack.nouns() and pack.apart(photo.absent, [photo.name, *photo.also]), photo


def test_new_names_are_new():
    new = photo_parts.photos("new")
    assert len(new) == 24 == len({photo.name for photo in new})
    assert not {name for photo in new for name in (photo.name, *photo.also)} & set(pack.nouns())


def test_training_has_none_of_the_packages():
    packages = {row[5].split()[0] for row in notice_rows()}
    assert {"gcompris-qt-data", "scikit-image"} <= packages
    training = (pack.PACK / "NOTICE.md").read_text(encoding="utf-8").lower()
    for package in (*packages, "gcompris", "skimage"):
        assert package.lower() not in training
    sources = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "tools").rglob("*probe_pack*/*.tsv")))
    assert not [package for package in packages if package in sources]


def test_training_has_none_of_the_pictures():
    own = {hashlib.sha256(data).hexdigest() for data in pictures().values()}
    for file in sorted(pack.PACK.glob("*.zip")):
        with zipfile.ZipFile(file) as archive:
            assert not {hashlib.sha256(archive.read(name)).hexdigest() for name in archive.namelist()} & own


# --- what is asked --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", photo_suite.SPLITS)
def test_the_same_bytes_each_time_and_every_question_can_be_scored(split, few, tmp_path):
    asked = entries(split, tmp_path / "a")
    entries(split, tmp_path / "b")
    assert content(tmp_path / "a") == content(tmp_path / "b")
    check_questions(read_questions(tmp_path / "a" / "questions.json"))
    assert all(entry["category"] == split for entry in asked)
    assert all(entry["answer"] in entry["choices"] for entry in asked if "new_names" not in entry["task"])
    assert {entry["image"] for entry in asked} == {name for name in content(tmp_path / "a") if name != "questions.json"}


def test_whole(tmp_path):
    asked = entries("whole", tmp_path)
    assert Counter(entry["task"] for entry in asked)["scikit-image"] == 10
    assert all(entry["choices"] == list(pack.nouns()) for entry in asked)
    wordings = Counter(entry["question"] for entry in asked)
    assert set(wordings) == set(NAME_WORDINGS) and max(wordings.values()) - min(wordings.values()) <= 1
    (boats,) = [entry for entry in asked if entry["answer"] == "boat"]
    assert boats["answers"] == ["boat", "sailboat"]


def test_cutouts_are_shown_twice_on_the_backgrounds_of_tests(few, tmp_path):
    asked = entries("cutouts", tmp_path)
    assert [(entry["answer"], entry["task"]) for entry in asked] == [("mug", "cutouts_new")] * 2 + [
        ("owl", "cutouts")
    ] * 2
    backs = set()
    for entry in asked:
        pixels = np.asarray(Image.open(tmp_path / entry["image"])).astype(int)
        assert pixels.shape == (SIZE, SIZE, 3)
        shown = np.argwhere((pixels[..., 1] > 150) | (pixels[..., 0] > 150))
        longer = max(shown.max(axis=0) - shown.min(axis=0)) + 1
        assert 0.44 <= longer / SIZE <= 0.91
        backs.add(tuple(np.median(pixels[(pixels[..., 1] == 90) & (pixels[..., 2] == 120)], axis=0)))
    assert len(backs) == 3  # dealt: all three are used before one comes again


def test_hands_stand_out_and_each_set_is_a_task(few, tmp_path):
    asked = entries("hands", tmp_path)
    assert Counter(entry["task"] for entry in asked) == {"pen": 3, "ink": 1}
    for entry in asked:
        image = Image.open(tmp_path / entry["image"])
        colors = {color for _, color in image.getcolors(SIZE * SIZE)}
        (back,) = colors & set(COLORS.values())
        mean = few[entry["task"]][entry["answer"]][0].mean
        assert distance(mean, back) > 50  # the second drawing of a name is a little darker than the first
    assert len({entry["image"] for entry in asked}) == 4


def test_ink_of_the_colour_of_the_background_is_not_hidden():
    outlined = Image.new("RGBA", (64, 64), (20, 20, 20, 255))
    outlined.paste((250, 218, 48, 255), (8, 8, 56, 56))  # on average far from black
    colors = photo_parts.clear_colors(outlined)
    assert not {COLORS["black"], COLORS["yellow"]} & set(colors) and COLORS["blue"] in colors


def test_a_large_set_is_capped_evenly():
    names = [f"{number:03d}" for number in range(300)]
    assert photo_parts.spread(names, 150) == names[::2]
    assert photo_parts.spread(names[:7], 150) == names[:7]
    assert len(set(photo_parts.spread(names[:151], 150))) == 150


def test_open_questions(monkeypatch, tmp_path):
    monkeypatch.setattr(pack, "photo_nouns", lambda: {"orange": None, "igloo": None})
    by_task = defaultdict(list)
    for entry in entries("open", tmp_path):
        by_task[entry["task"]].append(entry)
    assert list(by_task) == ["animal", "use", "exists", "new_names", "new_names_shown"]
    assert {"What animal is this?"} < {entry["question"] for entry in by_task["animal"]}
    assert all(pack.nouns()[entry["answer"]].category == "animal" for entry in by_task["animal"])
    assert {entry["answer"] for entry in by_task["use"]} <= set(USES)
    assert [entry["answer"] for entry in by_task["new_names_shown"]] == ["igloo", "orange"]
    assert not any(entry["choices"] for entry in by_task["new_names"]) and len(by_task["new_names"]) == 22
    answers = defaultdict(list)
    for entry in by_task["exists"]:
        answers[entry["image"]].append((entry["answer"], entry["question"]))
    assert len(answers) == len(photo_parts.photos("skimage", "whole"))
    for pair in answers.values():
        assert [answer for answer, _ in pair] == ["yes", "no"] and pair[0][1] != pair[1][1]


def test_kept_in_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("IGVA_HOME", str(tmp_path))
    (file,) = photo_suite.photo_questions(["whole"])
    assert file.parent.parent == tmp_path / "photos" and file.parent.name.startswith("whole-")
    before = file.stat()
    monkeypatch.setitem(photo_parts.PARTS, "whole", None)  # nothing is drawn again
    assert photo_suite.photo_questions(["whole"]) == [file] and file.stat() == before


# --- the pack's part ------------------------------------------------------------------------------------------------


def test_held_out_photographs_of_the_pack(tmp_path):
    asked = entries("cutouts", tmp_path)
    held = pack.held_out_photographs()
    assert len(asked) == 2 * sum(map(len, held.values())) and len(held) >= 30


def test_held_out_sets_of_the_pack(tmp_path):
    asked = Counter(entry["task"] for entry in entries("hands", tmp_path))
    assert len(asked) == 2 and all(50 <= count <= photo_parts.CAP for count in asked.values())
    assert not set(asked) & {*pack.WHOLE, *pack.MIXTURE}
