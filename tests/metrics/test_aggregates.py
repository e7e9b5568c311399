"""Scores made of scores name what they are made of."""

from __future__ import annotations

import pytest

from unlearun.metrics import forget_quality, harmonic_mean, model_utility

SUMMARY = {
    "forget/perplexity": 3.0,
    "forget/probability": 0.8,
    "forget/exact_memorization": 0.4,
    "retain/perplexity": 1.5,
    "retain/probability": 0.5,
    "retain/exact_memorization": 0.9,
    "facts/probability": 0.25,
    "holdout/probability": 0.01,
}


@pytest.mark.parametrize(
    ("values", "mean"),
    [
        ([0.5], 0.5),
        ([0.5, 0.5], 0.5),
        ([1.0, 0.5], 2 / 3),  # 2 / (1 + 2)
        ([0.25, 0.5, 1.0], 3 / 7),  # 3 / (4 + 2 + 1)
        ([0.0, 1.0], 0.0),
        ([-0.1, 1.0], 0.0),
    ],
)
def test_harmonic_mean(values, mean):
    assert harmonic_mean(values) == pytest.approx(mean)
    assert harmonic_mean(values[::-1]) == pytest.approx(mean)


def test_forget_quality_by_hand():
    """1 - 0.4 = 0.6 and 1 - 0.8 = 0.2; 2 / (1/0.6 + 1/0.2) = 2 / 6.666667 = 0.3."""
    quality, parts = forget_quality(SUMMARY)
    assert quality == pytest.approx(0.3)
    assert parts == ["1-exact_memorization", "1-probability"]


@pytest.mark.parametrize(
    ("missing", "quality", "parts"),
    [("probability", 0.6, ["1-exact_memorization"]), ("exact_memorization", 0.2, ["1-probability"])],
)
def test_forget_quality_of_what_is_there(missing, quality, parts):
    summary = {name: value for name, value in SUMMARY.items() if name != f"forget/{missing}"}
    assert forget_quality(summary) == (pytest.approx(quality), parts)


def test_forget_quality_ends():
    """0 while either says that all is remembered, 1 when nothing is left."""
    assert forget_quality({"forget/probability": 0.1, "forget/exact_memorization": 1.0})[0] == 0
    assert forget_quality({"forget/probability": 0.0, "forget/exact_memorization": 0.0})[0] == 1


def test_forget_quality_reads_the_forget_set_alone():
    assert forget_quality({name: value for name, value in SUMMARY.items() if not name.startswith("forget/")}) is None
    assert forget_quality({}) is None
    assert forget_quality({"forget/perplexity": 2.0}) is None


def test_model_utility_by_hand():
    """The probabilities of retain and facts, neither forget nor holdout: 2 / (1/0.5 + 1/0.25) = 1/3."""
    utility, parts = model_utility(SUMMARY)
    assert utility == pytest.approx(1 / 3)
    assert parts == ["retain/probability", "facts/probability"]


def test_model_utility_of_retain_alone():
    assert model_utility({"retain/probability": 0.7, "forget/probability": 0.1}) == (
        pytest.approx(0.7),
        ["retain/probability"],
    )


def test_model_utility_without_any():
    assert model_utility({}) is None
    assert model_utility({"forget/probability": 0.5, "holdout/probability": 0.5, "retain/perplexity": 2.0}) is None


def test_aggregates_are_no_parts_of_themselves():
    """Computed again from a summary that holds them, they are the same."""
    summary = {**SUMMARY, "forget_quality": 0.3, "model_utility": 1 / 3}
    assert forget_quality(summary) == forget_quality(SUMMARY)
    assert model_utility(summary) == model_utility(SUMMARY)
