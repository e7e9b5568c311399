"""What came back, against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from unlearun.records import Recovery, recovery

COLUMN = "extraction_strength"


def rows(*values: float | None) -> dict[str, dict[str, float | None]]:
    return {str(i): {COLUMN: value} for i, value in enumerate(values)}


def test_the_share_is_of_the_means():
    """Means 0.9, 0.3 and 0.5: of 0.6 that were forgotten 0.2 came back."""
    found = recovery(rows(1.0, 0.8), rows(0.2, 0.4), rows(0.6, 0.4), COLUMN)
    assert found.share == pytest.approx(1 / 3)
    assert (found.start, found.unlearned, found.value) == pytest.approx((0.9, 0.3, 0.5))
    assert found.low <= found.share <= found.high


def test_the_interval_is_a_bootstrap_that_takes_the_same_rows_of_all_three():
    """Against 4,000 resamples drawn here; a share of resampled means, not a mean of shares."""
    draw = np.random.default_rng(1)
    start, unlearned = draw.uniform(0.6, 1, 50), draw.uniform(0, 0.3, 50)
    attacked = np.clip(unlearned + draw.uniform(-0.1, 0.5, 50), 0, 1)
    found = recovery(rows(*start), rows(*unlearned), rows(*attacked), COLUMN)
    chosen = draw.integers(0, 50, (4000, 50))
    means = [side[chosen].mean(1) for side in (start, unlearned, attacked)]
    shares = np.clip((means[2] - means[1]) / (means[0] - means[1]), 0, 1)
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(shares, [2.5, 97.5])), abs=0.02)
    assert (found.value_low, found.value_high) == pytest.approx(tuple(np.percentile(means[2], [2.5, 97.5])), abs=0.02)


def test_each_resample_takes_the_same_rows_of_all_three():
    """Of every row 0.6 was forgotten and 0.2 came back, so a third comes back of any choice of rows."""
    draw = np.random.default_rng(2).uniform(0, 0.4, 30)
    found = recovery(rows(*draw + 0.6), rows(*draw), rows(*draw + 0.2), COLUMN)
    assert (found.low, found.share, found.high) == pytest.approx((1 / 3,) * 3)


@pytest.mark.parametrize(("attacked", "share"), [(0.0, 0.0), (1.0, 1.0), (0.2, 0.0), (0.9, 1.0)])
def test_it_is_clipped(attacked, share):
    assert recovery(rows(0.8), rows(0.3), rows(attacked), COLUMN).share == share


def test_where_little_was_forgotten_there_is_no_share():
    assert math.isnan(recovery(rows(0.34), rows(0.3), rows(0.32), COLUMN).share)
    assert recovery(rows(0.36), rows(0.3), rows(0.33), COLUMN).share == pytest.approx(0.5)
    assert math.isnan(recovery(rows(0.2), rows(0.3), rows(0.32), COLUMN).share)


def test_what_was_not_measured_before_has_a_value_all_the_same():
    found = recovery(rows(1.0, 1.0), {}, rows(0.5, 0.7), COLUMN)
    assert found.value == pytest.approx(0.6)
    assert found.value_low <= 0.6 <= found.value_high
    assert all(math.isnan(number) for number in (found.share, found.low, found.high, found.unlearned))


@pytest.mark.parametrize("lost", range(2, 40))
def test_two_of_forty_rows_are_enough_to_be_forgotten(lost):
    """Two of forty are 0.05, which binary fractions miss by a hair in half of all cases."""
    start, after = ([1.0] * known + [0.0] * (40 - known) for known in (40 - lost + 2, 40 - lost))
    found = recovery(rows(*start), rows(*after), rows(*start), COLUMN)
    assert found.share == pytest.approx(1)


def test_only_rows_of_the_attack_count():
    found = recovery(rows(1.0, 1.0), rows(0.0, 0.5), {"1": {COLUMN: 0.75}}, COLUMN)
    assert found.share == 0.5
    assert found.unlearned == 0.5


def test_without_a_start_the_values_are_known_and_the_share_is_not():
    for start in ({}, {"0": {COLUMN: 1.0}}, {"0": {"other": 1.0}, "1": {"other": 1.0}}):
        found = recovery(start, rows(0.1, 0.3), rows(0.5, 0.7), COLUMN)
        assert (found.unlearned, found.value) == pytest.approx((0.2, 0.6))
        assert math.isnan(found.share)
        assert math.isnan(found.start)


def test_a_record_without_a_number_spoils_the_share_and_nothing_else():
    assert math.isnan(recovery(rows(1.0, 1.0), rows(0.0, 0.0), rows(0.5, None), COLUMN).share)
    assert all(math.isnan(value) for value in recovery({}, {}, {}, COLUMN))
    assert isinstance(recovery({}, {}, {}, COLUMN), Recovery)
