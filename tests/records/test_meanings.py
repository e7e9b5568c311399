"""Every metric says which direction is better and what a value means."""

from __future__ import annotations

import math

import pytest

from unlearun.records import AGGREGATES, better, meaning, set_scores
from unlearun.records.meanings import MEANINGS


@pytest.mark.parametrize("metric", [*set_scores("forget"), *AGGREGATES, "ks_forget_quality_log10"])
@pytest.mark.parametrize("value", [-120.0, 0.0, 0.2, 0.5, 0.77, 1.0, 40.0, math.inf])
def test_every_metric_has_words_for_every_value(metric, value):
    assert 3 < len(meaning(metric, value)) <= 65
    assert 3 < len(meaning(f"retain/{metric}", value)) <= 65
    assert "no number" in meaning(metric, math.nan)


@pytest.mark.parametrize(
    ("metric", "forget", "kept"),
    [
        ("perplexity", "higher", "lower"),
        ("probability", "lower", "higher"),
        ("exact_memorization", "lower", "higher"),
        ("extraction_strength", "lower", "higher"),
        ("verbatim_memorization", "lower", "higher"),
        ("rouge", "lower", "higher"),
        ("rouge2_f1", "lower", "higher"),
        ("rougeL_f1_unstemmed", "lower", "higher"),
        ("truth_ratio", "higher", "higher"),
        ("short_answer", "lower", "higher"),
        ("choice_accuracy", "lower", "higher"),
        ("fluency", "higher", "higher"),
    ],
)
def test_directions_by_role(metric, forget, kept):
    assert better(metric) == better(f"forget/{metric}") == better(f"forget_paraphrased/{metric}") == forget
    assert better(f"retain/{metric}") == better(f"world_facts/{metric}") == kept
    assert better(f"holdout/{metric}") == ("higher" if metric == "fluency" else "")


def test_directions_of_aggregates():
    ways = {name: better(name) for name in AGGREGATES}
    assert {name for name, way in ways.items() if way == "higher"} == {
        "forget_quality",
        "ks_forget_quality",
        "model_utility",
    }
    assert {name for name, way in ways.items() if way == "0.5"} == {name for name in ways if name.startswith("mia")}
    assert ways["privleak"] == "0"
    assert better("ks_forget_quality_log10") == "higher"


def test_a_metric_of_the_users_own_has_no_words():
    assert (better("retain/length"), better("length"), meaning("length", 0.5)) == ("", "", "")
    assert "length" not in MEANINGS


@pytest.mark.parametrize("attack", [name for name in AGGREGATES if name.startswith("mia")])
def test_an_area_under_half_is_over_unlearning(attack):
    assert meaning(attack, 0.31) == "over-unlearned, the members look less familiar than strangers"
    assert meaning(attack, 0.31, (0.2, 0.4)) == meaning(attack, 0.31)
    assert meaning(attack, 0.7) == "the members are recognised"
    assert meaning(attack, 1.0) == "nearly all members are recognised"


@pytest.mark.parametrize(
    ("value", "interval"),
    [(0.47, None), (0.5, None), (0.54, None), (0.31, (0.1, 0.52)), (0.47, (0.46, 0.48)), (0.8, (0.48, 0.99))],
)
def test_an_area_near_half_or_with_half_in_its_interval_claims_nothing(value, interval):
    assert meaning("mia", value, interval) == "no clear difference between members and strangers"


@pytest.mark.parametrize(
    ("value", "interval", "words"),
    [
        (-60.0, None, "under-unlearned"),
        (60.0, None, "over-unlearned"),
        (4.0, None, "no clear difference"),
        (60.0, (-5.0, 90.0), "no clear difference"),
        (60.0, (20.0, 90.0), "over-unlearned"),
    ],
)
def test_privleak_far_above_0_is_over_unlearning(value, interval, words):
    assert meaning("privleak", value, interval).startswith(words)


def test_ks_and_its_logarithm_say_the_same():
    for p in (1e-21, 0.01, 0.2, 1.0):
        assert meaning("ks_forget_quality", p) == meaning("ks_forget_quality_log10", math.log10(p))
    assert "clearly told" in meaning("ks_forget_quality", 1e-4)
    assert "not told" in meaning("ks_forget_quality", 0.06)


@pytest.mark.parametrize("value", [1.5, 40.0, 400.0, 1e308])
def test_a_logarithm_that_no_p_value_has_reads_like_1(value):
    assert meaning("ks_forget_quality_log10", value) == meaning("ks_forget_quality", 1.0)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.0, "the forget set is fully known"),
        (0.05, "the forget set is fully known"),
        (0.2, "the forget set is well known"),
        (0.45, "the forget set is partly known"),
        (
            0.65,
            "the forget set is hardly known, or as by a stranger",
        ),  # the pocket model that never saw it
        (1.0, "the forget set is hardly known, or as by a stranger"),
    ],
)
def test_forget_quality_claims_no_share(value, words):
    assert meaning("forget_quality", value) == words


def test_truth_ratio_reads_differently_on_what_is_to_be_kept():
    assert meaning("truth_ratio", 0.9) == "right and wrong answers are about equally likely"
    assert meaning("retain/truth_ratio", 0.9) == "the right answers are clearly preferred to wrong ones"
