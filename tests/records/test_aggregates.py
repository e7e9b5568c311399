"""Numbers made of several: by hand, and against references of a few lines."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest

from unlearun.records import auroc, harmonic_mean, kolmogorov_smirnov, privleak


def pairs_won(members, others) -> float:
    """The share of pairs in which the member scores higher, a tie being half of one."""
    return sum((m > o) + (m == o) / 2 for m in members for o in others) / (len(members) * len(others))


def largest_gap(first, second) -> float:
    """The Kolmogorov–Smirnov statistic: the largest distance of the two empirical distributions."""
    return max(abs(np.mean(first <= x) - np.mean(second <= x)) for x in [*first, *second])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.5], 0.5),
        ([1.0, 0.5], 2 / 3),  # 2 / (1 + 2)
        ([0.25, 0.5, 1.0], 3 / 7),  # 3 / (4 + 2 + 1)
        ([0.0, 1.0], 0.0),
        ([-0.1, 1.0], 0.0),
    ],
)
def test_harmonic_mean(values, expected):
    assert harmonic_mean(values) == pytest.approx(expected)
    assert harmonic_mean(values[::-1]) == pytest.approx(expected)


def test_harmonic_mean_of_resamples_is_taken_over_the_first_axis():
    parts = [np.array([1.0, 0.25, math.nan, 0.0]), np.array([0.5, 0.25, 0.5, math.nan])]
    assert harmonic_mean(parts) == pytest.approx([2 / 3, 0.25, math.nan, math.nan], nan_ok=True)


@pytest.mark.parametrize(
    ("members", "others", "area"),
    [
        ([3.0, 4.0], [1.0, 2.0], 1.0),
        ([1.0, 2.0], [3.0, 4.0], 0.0),
        ([1.0, 1.0], [1.0], 0.5),
        ([2.0, 1.0], [1.0, 0.0], 0.875),  # 3 of 4 pairs, and half of the tie
    ],
)
def test_auroc_by_hand(members, others, area):
    assert auroc(np.array(members), np.array(others)) == [area]


def test_auroc_counts_pairs_ties_and_weights():
    generator = np.random.default_rng(0)
    members, others = generator.integers(0, 6, 37) + 1.0, generator.integers(0, 5, 23) + 0.0
    assert auroc(members, others)[0] == pytest.approx(pairs_won(members, others))
    w, v = generator.multinomial(37, np.full(37, 1 / 37), 5), generator.multinomial(23, np.full(23, 1 / 23), 5)
    drawn = [pairs_won(np.repeat(members, w[i]), np.repeat(others, v[i])) for i in range(5)]
    assert auroc(members, others, w.astype(float), v.astype(float)) == pytest.approx(drawn)


def test_auroc_of_what_is_unknown_is_unknown():
    assert np.isnan(auroc(np.array([1.0, math.nan]), np.array([0.0])))


@pytest.mark.parametrize(
    ("area", "retain_area", "percent"),
    [
        (0.5, 0.5, 0.0),
        (1.0, 0.5, -100.0),  # nothing forgotten
        (0.25, 0.5, 50.0),  # over-unlearned: (0.75 - 0.5) / 0.5
        (0.6, 0.2, -50.0),  # (0.4 - 0.8) / 0.8
    ],
)
def test_privleak_signs(area, retain_area, percent):
    assert privleak(np.array(area), retain_area) == pytest.approx(percent)


def test_privleak_against_a_retain_model_that_tells_all_apart_is_unknown():
    assert np.isnan(privleak(np.array([0.5, 1.0]), 1.0)).all()


def test_ks_of_identical_ratios_is_1():
    ratios = np.array([0.2, 0.9, 1.4, 3.0])
    assert kolmogorov_smirnov(ratios, ratios[::-1]) == 1.0


def test_ks_by_hand():
    """Three below three: of the 20 orders of six values 2 have the largest gap of 1. p = 2/20."""
    assert kolmogorov_smirnov(np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0, 6.0])) == pytest.approx(0.1)


def test_ks_agrees_with_a_count_of_all_orders():
    """p is the share of the 924 ways to deal twelve values into six and six whose largest gap is as large."""
    generator = np.random.default_rng(1)
    values = generator.lognormal(size=12)
    values[6:] *= 2
    gaps = []
    for chosen in combinations(range(12), 6):
        first = np.isin(np.arange(12), chosen)
        gaps.append(largest_gap(values[first], values[~first]))
    expected = np.mean(np.array(gaps) >= largest_gap(values[:6], values[6:]) - 1e-9)
    assert 0.01 < expected < 0.9
    assert kolmogorov_smirnov(values[:6], values[6:]) == pytest.approx(expected)
    assert kolmogorov_smirnov(1 / values[:6], 1 / values[6:]) == pytest.approx(expected)


def test_ks_of_what_is_unknown_is_unknown():
    assert math.isnan(kolmogorov_smirnov(np.array([math.nan, 1.0]), np.array([1.0])))
