"""The one score, against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest

from unlearun.records import Evaluation, one_score, quantisation_faith, relearning_faith
from unlearun.records.one_score import closeness, privacy

PARTS = {"model_utility": ["retain/probability"]}


def found(parts: dict | None = None, **summary: float) -> Evaluation:
    named = {name.replace("__", "/"): value for name, value in summary.items()}
    return Evaluation(1, summary=named, parts=PARTS if parts is None else parts)


def test_it_is_the_harmonic_mean_of_three():
    """Priv: |0.9 - 0.6| / 0.6 = 0.5 and 0, so 0.5 and 1, harmonic mean 2/3. Util: 0.3 / 0.4."""
    unlearned = found(forget_quality=0.6, model_utility=0.3, mia=0.9, mia_zlib=0.5)
    score = one_score(unlearned, found(model_utility=0.4), found(mia=0.6, mia_zlib=0.5, mia_min_k=0.7))
    assert score.memorization == 0.6
    assert score.privacy == pytest.approx(2 / 3)
    assert score.utility == pytest.approx(0.75)
    assert score.aggregate == pytest.approx(3 / (1 / 0.6 + 3 / 2 + 1 / 0.75))


def test_utility_is_at_most_what_it_was_and_fluency_counts_where_both_have_it():
    unlearned = found(forget_quality=0.5, model_utility=0.8, forget__fluency=0.45)
    start = found(model_utility=0.4, forget__fluency=0.9)
    assert one_score(unlearned, start, None).utility == pytest.approx(2 / (1 / 1 + 1 / 0.5))
    assert one_score(unlearned, found(model_utility=0.4), None).utility == 1


def test_utility_is_that_of_the_same_parts_in_any_order():
    unlearned = found({"model_utility": ["a/rouge", "b/rouge"]}, forget_quality=0.5, model_utility=0.2)
    for parts, kept in ((["b/rouge", "a/rouge"], 0.5), (["a/rouge"], math.nan)):
        start = found({"model_utility": parts}, model_utility=0.4)
        assert one_score(unlearned, start, None).utility == pytest.approx(kept, nan_ok=True)


def on_rows(evaluation: Evaluation, name: str, digest: str) -> Evaluation:
    evaluation.fingerprint = {"sets": {name: {"rows": 4, "digest": digest}}}
    return evaluation


def test_what_was_measured_on_other_rows_is_not_compared():
    unlearned = on_rows(found(forget_quality=0.6, mia=0.9), "holdout", "a")
    assert math.isnan(privacy(unlearned, on_rows(found(mia=0.6), "holdout", "b")))
    assert privacy(unlearned, on_rows(found(mia=0.6), "holdout", "a")) == pytest.approx(0.5)
    unlearned = on_rows(found(forget_quality=0.6, model_utility=0.3), "retain90", "a")
    other, same = (on_rows(found(model_utility=0.4), "retain90", digest) for digest in "ba")
    assert math.isnan(one_score(unlearned, other, None).utility)
    assert one_score(unlearned, same, None).utility == pytest.approx(0.75)


def test_what_is_not_known_makes_the_whole_unknown():
    unlearned = found(forget_quality=0.6, model_utility=0.3, mia=0.9)
    start, retain = found(model_utility=0.4), found(mia=0.6)
    assert math.isnan(one_score(unlearned, None, retain).aggregate)
    assert math.isnan(one_score(unlearned, start, None).aggregate)
    assert math.isnan(one_score(found(model_utility=0.3, mia=0.9), start, retain).aggregate)
    assert math.isnan(
        one_score(unlearned, found({"model_utility": ["facts/rouge"]}, model_utility=0.4), retain).utility
    )
    assert not math.isnan(one_score(unlearned, start, retain).aggregate)


def test_over_unlearning_costs_as_much_as_remembering():
    assert [closeness(0.3, 0.6), closeness(0.9, 0.6)] == pytest.approx([0.5, 0.5])
    assert closeness(1.0, 0.4) == 0
    assert math.isnan(closeness(0.5, 0.0))
    assert privacy(found(mia=1.0), found(mia=0.4)) == 0


def test_a_metric_that_rises_as_fast_as_in_the_retain_model_can_be_trusted():
    assert relearning_faith(0.1, 0.3, 0.2, 0.6) == pytest.approx(0.5)
    assert relearning_faith(0.1, 0.9, 0.2, 0.6) == 1
    assert relearning_faith(0.3, 0.1, 0.2, 0.6) == 0
    assert relearning_faith(0.1, 0.3, 0.6, 0.6) == 1  # it rose in the retain model alone
    assert relearning_faith(0.1, 0.3, 0.6, 0.5) == 1
    assert math.isnan(relearning_faith(0.1, 0.1, 0.6, 0.6 + 1e-9))  # in neither
    assert math.isnan(relearning_faith(math.nan, 0.3, 0.2, 0.6))
    assert math.isnan(relearning_faith(0.1, 0.3, 0.2, math.nan))


def test_a_metric_that_rises_under_quantisation_had_missed_something():
    assert quantisation_faith(0.2, 0.8) == pytest.approx(0.25)
    assert quantisation_faith(0.2, 0.1) == 1
    assert quantisation_faith(0.0, 0.0) == 1
    assert quantisation_faith(0.0, 0.5) == 0
    assert math.isnan(quantisation_faith(math.nan, 0.5))
