"""The pack: what its archives hold, what is held out, and that splits of before it grew are as they were."""

import hashlib
import itertools
import zipfile

import numpy as np
import pytest

from igva.probe import SPLITS, pack, suite

# SHA-256 of the first 60 pictures of each split with what is asked about them, before photographs and further drawings
# came in.
PINNED = {
    "val": "054c5de19a02aef7bd238565d801d17ac678cb839feee7096c2d9b51765a0338",
    "test": "79e7a72302e928ed99317f424f25eb75435e64374ddee0f202b9c9a1ebabf7b6",
    "unseen": "d8a3316c457ec4b9d1b1c0c0f4476c05716d200b521a9e70039476f27cb74248",
}
FILES = {
    "noto.zip": "401fe1190701c70ea96b1991a7420d3ef2f3f92cfa3172a73e53791b38da3099",
    "fluent.zip": "e428430d03184b5668bb4394b43b916b23d17b2bedfc8b1616e4cfe2f539a7ec",
    "twemoji.zip": "05ab12b134e959eb8809214e884c8a1cd390604dc31a1a8a3dc8e93c72607bd0",
    "names.json": "8c1706e18da888bc74e6b880d502cac060957649aa6d0e0e3f161b876507376d",
}
TRAINING = [*pack.MIXTURE, "stamps", "backgrounds"]
TESTING = [*(f"drawings-test-{style}" for style in pack.HELD_OUT_SETS), "stamps-test", "backgrounds-test"]


def contents(archive: str) -> dict[str, bytes]:
    """The files of an archive of the pack."""
    with zipfile.ZipFile(pack.PACK / f"{archive}.zip") as opened:
        return {name: opened.read(name) for name in opened.namelist()}


@pytest.mark.parametrize("split", PINNED)
def test_the_evaluation_splits_stay_as_they_were(split: str) -> None:
    digest = hashlib.sha256()
    for index in range(60):
        made = suite.sample(split, index)
        digest.update(made.image.tobytes())
        talks = [
            (talk.task, [tuple(vars(turn).values()) for turn in talk.turns], talk.suffix) for talk in made.conversations
        ]
        digest.update(repr((made.cells, talks)).encode())
    assert digest.hexdigest() == PINNED[split]


@pytest.mark.parametrize("file", FILES)
def test_what_those_splits_are_drawn_from_stays_as_it_was(file: str) -> None:
    assert hashlib.sha256((pack.PACK / file).read_bytes()).hexdigest() == FILES[file]


def test_every_archive_is_known() -> None:
    found = {path.stem for path in pack.PACK.glob("*.zip")}
    assert found == {*TRAINING, *TESTING, *pack.WHOLE}


def test_nothing_held_out_is_trained_on() -> None:
    trained = {data for archive in TRAINING for data in contents(archive).values()}
    for archive in TESTING:
        assert trained.isdisjoint(contents(archive).values()), archive
    assert set(pack.HELD_OUT_SETS).isdisjoint({*pack.MIXTURE, *SPLITS["train"].styles})
    assert not any(style in noun.files for style in pack.HELD_OUT_SETS for noun in pack.nouns().values())


def test_a_background_photograph_is_for_training_or_for_testing() -> None:
    photos = [{file.rpartition("-")[0] for file in contents(name)} for name in ("backgrounds", "backgrounds-test")]
    assert photos[0].isdisjoint(photos[1])
    assert len(photos[0]) >= 20 and len(photos[1]) >= 5


@pytest.mark.parametrize("test", [False, True])
def test_backgrounds(test: bool) -> None:
    found = pack.backgrounds(test)
    assert all(image.mode == "RGB" and image.size == (256, 256) for image in found)
    assert len({image.tobytes() for image in found}) == len(found)


def test_the_held_out_sets_cover_names_enough() -> None:
    for style in pack.HELD_OUT_SETS:
        covered = [name for name in pack.nouns() if pack.held_out_drawings(style, name)]
        assert len(covered) >= 50
        shown = {file.rpartition("-")[0] for file in contents(f"drawings-test-{style}")}
        assert shown == set(covered)  # none of another name
    assert pack.held_out_drawings(pack.HELD_OUT_SETS[0], "zebra") == ()


def test_photographs_are_of_known_names() -> None:
    names = pack.photograph_names()
    assert set(names) <= {*pack.nouns(), *pack.photo_nouns()}
    assert set(pack.photo_nouns()) <= set(names)  # or there would be nothing to show
    assert set(pack.nouns()).isdisjoint(pack.photo_nouns())
    assert pack.photographs("abacus") == ()
    assert sum(len(pack.photographs(name)) for name in names) >= 200


def test_one_photograph_is_held_out_where_training_keeps_another() -> None:
    held_out = pack.held_out_photographs()
    assert len(held_out) >= 40
    for name, images in held_out.items():
        assert len(images) == 1 and pack.photographs(name), name
    assert all(name in held_out for name in pack.photograph_names() if len(pack.photographs(name)) > 1)


def test_photographs_are_cut_out() -> None:
    for name in pack.photograph_names():
        for made in pack.photographs(name):
            alpha = np.asarray(made.image.getchannel("A"))
            assert max(made.image.size) <= 192 and (alpha > 127).any()
            # A rectangle all of which is visible would be an uncut photograph; stones and boxes nearly are.
            assert (alpha < 40).any(), name


def test_names_of_both_tables_are_found_and_kept_apart() -> None:
    assert pack.noun("cat") is pack.nouns()["cat"]
    assert pack.noun("orange").phrase == "an orange" and pack.noun("scissors").phrase == "scissors"
    with pytest.raises(KeyError):
        pack.noun("sphinx")
    assert not pack.apart("orca", ["whale"]) and not pack.apart("whale", ["cup", "orca"])
    assert pack.apart("orca", ["mug", "cat"]) and pack.apart("whale", ["mug", "cat"])


def test_kin_of_photographed_names_is_mutual_and_known() -> None:
    both = {**pack.nouns(), **pack.photo_nouns()}
    for name, noun in pack.photo_nouns().items():
        assert name not in noun.kin and noun.kin <= set(both)
        assert all(name in both[other].kin for other in noun.kin if other in pack.photo_nouns())
        assert noun.category in {other.category for other in pack.nouns().values()}


def test_silhouettes_have_one_ink() -> None:
    assert set(pack.SILHOUETTES) <= set(pack.MIXTURE)
    for style, name in itertools.product(pack.SILHOUETTES, ("anchor", "umbrella", "key")):
        for made in pack.drawings(style, name):
            pixels = np.asarray(made.image)
            assert pixels[pixels[..., 3] > 200][:, :3].max() < 40, (style, name)


def test_the_files_of_a_name_come_in_the_order_of_their_numbers() -> None:
    files = pack.nouns()["hat"].files["openclipart-more"]
    assert len(files) > 10
    assert [int(file.removeprefix("hat-").removesuffix(".webp")) for file in files] == list(range(len(files)))
