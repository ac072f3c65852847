"""The list of ImageNet's classes is whole, in order, and says nothing of them that the probe's facts deny."""

import pytest

from igva.imagenet.classes import TABLE, ImageClass, classes
from igva.probe import facts, pack


def test_a_thousand_classes_in_index_order():
    assert [one.index for one in classes()] == list(range(1000))
    assert classes() is classes()


@pytest.mark.parametrize(
    ("index", "label", "name"),
    [
        (0, "tench", "fish"),
        (134, "crane bird", "bird"),
        (207, "golden retriever", "dog"),
        (281, "tabby", "cat"),
        (340, "zebra", "zebra"),
        (347, "bison", None),
        (517, "construction crane", None),
        (812, "space shuttle", "rocket"),
        (889, "violin", "violin"),
        (980, "volcano", "volcano"),
        (985, "daisy", None),
        (999, "toilet paper", None),
    ],
)
def test_no_class_is_shifted(index, label, name):
    assert (classes()[index].label, classes()[index].name) == (label, name)


def test_what_is_said_of_one_class():
    assert classes()[207] == ImageClass(
        207, "golden retriever", "dog", "dog, golden retriever", ("dog", "animal"), "a", "golden retrievers"
    )
    assert classes()[207].phrase == "a golden retriever"
    assert classes()[608].phrase == "jeans"


def test_labels_and_texts_tell_the_classes_apart():
    for field in ("label", "text"):
        values = [getattr(one, field) for one in classes()]
        assert len(set(values)) == 1000
        assert all(value == value.lower().strip() and value for value in values)
    long = [one.label for one in classes() if len(one.label.split()) > 3]
    assert not long


def test_names_are_the_packs():
    nouns = pack.nouns()
    assert {one.name for one in classes()} - {None} <= nouns.keys()
    # A label that is a name of the pack means that thing: no kite with wings, no mouse with a cable.
    for one in classes():
        if one.label in nouns:
            noun = nouns[one.label]
            assert (one.name, one.plural) == (noun.name, noun.plural)
            assert one.article == noun.article or one.label == "hourglass"  # the pack, which stays as it is, has "a"
            assert one.text == one.label
        elif one.name:
            assert one.text.startswith(f"{one.name}, ")


def test_kinds_agree_with_the_probes_facts():
    for kind, members in facts.KINDS.items():
        lacking = [one.label for one in classes() if one.name in members and kind not in one.kinds]
        assert not lacking, kind


def test_kinds_go_from_near_to_far():
    for one in classes():
        assert len(set(one.kinds)) == len(one.kinds) and one.label not in one.kinds
        roots = [kind for kind in one.kinds if kind in facts.KINDS]
        assert len(roots) <= 1 and one.kinds[len(one.kinds) - len(roots) :] == tuple(roots), one.label


def test_articles_and_plurals():
    assert {one.article for one in classes()} == {"a", "an", ""}
    odd = {one.label for one in classes() if one.article and (one.article == "an") != (one.label[0] in "aeiou")}
    assert odd == {"hourglass", "one-piece swimsuit", "unicycle"}
    assert all(one.plural for one in classes())
    some = " ".join(classes()[index].plural for index in (269, 345, 499, 673, 998))
    assert some == "gray wolves oxen cleavers computer mice ears of corn"


def test_the_file_is_small_and_has_a_class_a_line():
    raw = TABLE.read_text(encoding="utf-8")
    assert len(raw.encode()) <= 120_000
    assert len(raw.splitlines()) == 1002
    assert (TABLE.parent / "LICENSE-wordnet.txt").read_text().count("WordNet 3.0 Copyright 2006 by Princeton") == 1
