"""Guidance and worth, from what runs leave."""

import pytest

from igva.study.guidance import ANOTHER_TASK, UNIFORM, guidance_of, guidance_table
from igva.study.trials import Outcome


def outcome(seed, scores, moved=None, exchanged=None):
    return Outcome("igva", seed, scores, None, None, 1.0, None, 0, None, moved, exchanged)


IDS = [f"q{number}" for number in range(20)]


def runs():
    """Right on all with its own weights, on the first half with those of another task, on none with uniform ones."""
    right, half, none = dict.fromkeys(IDS, 1.0), {name: float(name < "q15") for name in IDS}, dict.fromkeys(IDS, 0.0)
    return [
        outcome(seed, right, dict.fromkeys(IDS, moved), {ANOTHER_TASK: half, UNIFORM: none})
        for seed, moved in ((0, 0.1), (1, 0.3))
    ]


def test_means_over_seeds_and_questions():
    found = guidance_of(runs())
    assert (found.moved, found.low, found.high) == pytest.approx((20, 20, 20))
    half = sum(name >= "q15" for name in IDS) / len(IDS)
    assert found.worth[ANOTHER_TASK].difference == pytest.approx(100 * half)
    assert found.worth[UNIFORM].difference == 100 and found.worth[UNIFORM].p < 1e-4
    assert list(found.worth) == [ANOTHER_TASK, UNIFORM]


def test_the_table_has_the_guided_alone():
    plain = [outcome(0, dict.fromkeys(IDS, 1.0))]
    assert guidance_of(plain) is None and guidance_table({"mean": plain}) is None
    table = guidance_table({"mean": plain, "igva": runs()})
    assert [row[0] for row in table.rows] == ["igva"] and len(table.rows[0]) == len(table.columns) == 16
    assert table.rows[0][1] == 20 and table.rows[0][-1] is None  # its own mean was not tried
