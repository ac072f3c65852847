"""Intervals and tests against textbook numbers."""

import pytest

from igva.eval.statistics import mcnemar, mean_interval, mean_of_means_interval, paired_t, proportion_interval


def test_wilson():
    # By hand from Wilson's formula with z = 1.96: (p + z²/2n ± z·sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n)
    low, high = proportion_interval(8, 10)
    assert low == pytest.approx(0.4902, abs=1e-4) and high == pytest.approx(0.9433, abs=1e-4)
    assert proportion_interval(0, 10)[0] == 0 and proportion_interval(0, 10)[1] == pytest.approx(0.2775, abs=1e-4)
    narrow = proportion_interval(80, 100)
    assert low < narrow[0] < 0.8 < narrow[1] < high
    assert proportion_interval(8, 10, level=0.99)[0] < low


def test_interval_of_a_mean():
    # mean 3, standard error sqrt(2.5 / 5), t(0.975, 4) = 2.776
    low, high = mean_interval([1, 2, 3, 4, 5])
    assert low == pytest.approx(3 - 2.7764 * 0.5**0.5, abs=1e-3)
    assert high == pytest.approx(3 + 2.7764 * 0.5**0.5, abs=1e-3)
    assert mean_interval([0.5, 0.5]) == (0.5, 0.5) == mean_interval([0.5])


def test_interval_of_a_mean_of_means():
    # With 0, 0, 1, 1 added: variances 1/4 of 8 scores and (4/6)·(2/6) = 2/9 of 6; 1.96 · sqrt(1/32 + 1/27) / 2
    low, high = mean_of_means_interval([[0, 1, 0, 1], [1, 1]])
    assert (low + high) / 2 == pytest.approx(0.75)
    assert (high - low) / 2 == pytest.approx(1.96 * (1 / 32 + 1 / 27) ** 0.5 / 2, abs=1e-4)
    # of many scores in one group: as Wilson's
    many = [1.0] * 800 + [0.0] * 200
    assert mean_of_means_interval([many]) == pytest.approx(proportion_interval(800, 1000), abs=2e-3)


def test_mcnemar():
    # both tails of a fair coin: 2 · (1 + 10) / 2¹⁰
    assert mcnemar(1, 9) == pytest.approx(22 / 1024)
    assert mcnemar(9, 1) == mcnemar(1, 9)
    assert mcnemar(5, 5) == 1 == mcnemar(0, 0)


def test_paired_t():
    # differences 1, 2, 3: mean 2, standard error 1/sqrt(3), t = 3.464, two degrees of freedom
    mean, error, p = paired_t([2, 4, 6], [1, 2, 3])
    assert mean == 2 and error == pytest.approx(3**-0.5) and p == pytest.approx(0.0742, abs=1e-4)
    assert paired_t([1, 1], [1, 1]) == (0, 0, 1)
    assert paired_t([1, 1], [0, 0]) == (1, 0, 0)
