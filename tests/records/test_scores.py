"""How records become one number, by hand. W counts every example once, TWICE the first one twice and the last never."""

from __future__ import annotations

import math

import numpy as np
import pytest

from unlearun.records.scores import (
    MEANS,
    choice,
    forget_truth_ratio,
    kept_truth_ratio,
    mean,
    perplexity,
    set_scores,
)

ONCE_AND_TWICE = np.array([[1.0, 1.0, 1.0], [2.0, 1.0, 0.0]])
RATIOS = np.array([[0.5], [2.0], [4.0]])


def column(*values: float) -> np.ndarray:
    return np.array(values)[:, None]


@pytest.mark.parametrize(
    ("score", "once", "twice"),
    [
        (mean, 6.5 / 3, 1.0),  # (0.5 + 2 + 4) / 3; (0.5 + 0.5 + 2) / 3
        (forget_truth_ratio, 1.25 / 3, 0.5),  # min(R, 1/R) = 0.5, 0.5, 0.25
        (kept_truth_ratio, 0.5 / 3, 1 / 3),  # max(0, 1 - R) = 0.5, 0, 0
        (choice, (2 / 3 + 1 / 3 + 1 / 5) / 3, (2 / 3 + 2 / 3 + 1 / 3) / 3),  # 1 / (1 + R)
    ],
)
def test_means_of_truth_ratios_by_hand(score, once, twice):
    assert score(RATIOS, ONCE_AND_TWICE) == pytest.approx([once, twice])


def test_perplexity_weighs_tokens_alike():
    """S = -2, -6, -1 over n = 1, 3, 1: exp(9/5); the first twice, the last never: exp(10/5)."""
    records = np.array([[-2.0, 1.0], [-6.0, 3.0], [-1.0, 1.0]])
    assert perplexity(records, ONCE_AND_TWICE) == pytest.approx([math.exp(9 / 5), math.exp(2)])


def test_perplexity_beyond_a_double_is_infinite_without_a_warning():
    with np.errstate(all="raise"):
        assert perplexity(np.array([[-5000.0, 1.0]]), np.ones((1, 1))) == [math.inf]


def test_truth_ratios_at_the_ends():
    """R of 0, and one beyond a double, are as far from 1 as can be."""
    ends = column(0.0, math.inf)
    assert forget_truth_ratio(ends, np.ones((1, 2))) == [0.0]
    assert kept_truth_ratio(ends, np.ones((1, 2))) == [0.5]
    assert choice(ends, np.ones((1, 2))) == [0.5]


def test_a_forget_set_wants_balance_and_others_the_right_answer():
    forget, retain = set_scores("forget")["truth_ratio"], set_scores("retain")["truth_ratio"]
    assert forget.value(column(1.0)) == 1.0
    assert retain.value(column(1.0)) == 0.0
    assert {role: set_scores(role)["truth_ratio"].value(column(0.25)) for role in ("holdout", "utility")} == {
        "holdout": 0.75,
        "utility": 0.75,
    }


@pytest.mark.parametrize("name", MEANS)
def test_means_read_the_column_of_their_name(name):
    score = set_scores("forget")[name]
    assert (score.name, score.columns) == (name, (name,))
    assert score.value(column(0.25, 0.75)) == 0.5


def test_rouge_is_the_recall_of_rouge_l():
    assert set_scores("retain")["rouge"].columns == ("rougeL_recall",)
