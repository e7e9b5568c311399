"""All that can be said of an evaluation, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from unlearun.records import AGGREGATES, Evaluation, Score, find, mean, summarise


def rows(first: int = 0, **columns: list[float]) -> dict[str, dict[str, float]]:
    count = len(next(iter(columns.values())))
    return {str(first + i): {name: values[i] for name, values in columns.items()} for i in range(count)}


def evaluation(**sets: dict) -> Evaluation:
    return Evaluation(0, examples=sets)


def summary_of(made: Evaluation, **how: object) -> dict[str, float]:
    summarise(made, intervals=False, **how)
    return made.summary


def complete() -> Evaluation:
    """Everything that an aggregate reads, for 4 forget, 2 retain, 2 authors and 3 holdout rows."""
    attacks = ("mia", "mia_zlib", "mia_min_k", "mia_min_k_plus_plus", "mia_grad_norm")
    return evaluation(
        forget=rows(
            exact_memorization=[1.0, 0.5, 0.5, 0.0],
            extraction_strength=[0.5, 0.0, 0.5, 0.0],
            probability=[0.9, 0.9, 0.9, 0.9],
            paraphrase_probability=[0.25, 0.25, 0.5, 0.0],
            truth_ratio=[1.0, 3.0, 1.0, 3.0],
            logprob=[-4.0, -8.0, -4.0, -2.0],
            tokens=[4, 4, 2, 2],
            **{attack: [-1.0, -2.0, -2.0, -1.0] for attack in attacks},
        ),
        retain=rows(probability=[0.5, 0.5], rougeL_recall=[1.0, 1.0], truth_ratio=[0.25, 0.75]),
        real_authors=rows(probability=[0.25, 0.75]),
        holdout=rows(
            logprob=[-6.0, -6.0, -9.0], tokens=[2, 3, 3], **{attack: [-3.0, -2.0, -3.0] for attack in attacks}
        ),
    )


def test_scores_of_every_set():
    """exp(18/12) on forget, exp(21/8) on holdout."""
    summary = summary_of(complete())
    assert summary["forget/perplexity"] == pytest.approx(math.exp(1.5))
    assert summary["holdout/perplexity"] == pytest.approx(math.exp(21 / 8))
    assert summary["forget/exact_memorization"] == 0.5
    assert summary["forget/truth_ratio"] == pytest.approx(2 / 3)  # 1, 1/3, 1, 1/3
    assert summary["retain/truth_ratio"] == 0.5  # 3/4, 1/4
    assert summary["retain/rouge"] == summary["retain/rougeL_recall"] == 1.0
    assert "forget/rouge" not in summary


def test_forget_quality_by_hand():
    """1 - 1/2, 1 - 1/4, 1 - 1/4, 1 - (1/2 + 1/4 + 1/2 + 1/4) / 4 = 5/8: 4 / (2 + 4/3 + 4/3 + 8/5) = 60/94."""
    made = complete()
    assert summary_of(made)["forget_quality"] == pytest.approx(60 / 94)
    assert made.parts["forget_quality"] == [
        "1-exact_memorization",
        "1-extraction_strength",
        "1-paraphrase_probability",
        "1-choice",
    ]


def test_forget_quality_of_what_is_there():
    made = evaluation(forget=rows(probability=[0.25]), retain=rows(exact_memorization=[0.5]))
    assert summary_of(made)["forget_quality"] == 0.75
    assert made.parts["forget_quality"] == ["1-probability"]
    assert summary_of(evaluation(forget=rows(probability=[1.0], exact_memorization=[0.0])))["forget_quality"] == 0.0


def test_model_utility_by_hand_and_its_parts_named():
    """1/2, 1, 1/2 on retain, 1/2 on real authors, neither forget nor holdout: 4 / (2 + 1 + 2 + 2)."""
    made = complete()
    assert summary_of(made)["model_utility"] == pytest.approx(4 / 7)
    assert made.parts["model_utility"] == [
        "retain/probability",
        "retain/rouge",
        "retain/truth_ratio",
        "real_authors/probability",
    ]


@pytest.mark.parametrize("attack", ["mia", "mia_zlib", "mia_min_k", "mia_min_k_plus_plus", "mia_grad_norm"])
def test_attacks_by_hand(attack):
    """-1, -2, -2, -1 against -3, -2, -3: of 12 pairs 10 are won and 2 tied."""
    assert summary_of(complete())[attack] == pytest.approx(11 / 12)


def test_what_is_relative_to_a_retain_model():
    reference = complete()
    for record, score in zip(reference.examples["forget"].values(), [-3.0, -3.0, -2.0, -4.0], strict=True):
        record["mia_min_k"] = score  # against -3, -2, -3: 1, 1, 5/2 and 0 of 12 pairs
    summary = summary_of(complete(), reference=reference)
    assert summary["ks_forget_quality"] == 1.0
    assert summary["ks_forget_quality_log10"] == 0.0
    assert summary["mia_reference"] == 0.5  # all differences are 0
    rest = 1 - 4.5 / 12
    assert summary["privleak"] == pytest.approx((1 / 12 - rest) / rest * 100)
    assert not {"privleak", "mia_reference", "ks_forget_quality"} & set(summary_of(complete()))


def test_the_reference_attack_by_hand():
    """(S - S_ref) / n: forget 1, 1, 1, 1; holdout 1, 0, 0: a tie in three pairs each, 2 of 3 won: (8 + 2) / 12."""
    reference = complete()
    for name, gains in (("forget", [4, 4, 2, 2]), ("holdout", [2, 0, 0])):
        for record, gain in zip(reference.examples[name].values(), gains, strict=True):
            record["logprob"] -= gain
    assert summary_of(complete(), reference=reference)["mia_reference"] == pytest.approx(10 / 12)
    del reference.examples["holdout"]["2"]
    assert "mia_reference" not in summary_of(complete(), reference=reference)


def test_chosen_metrics_choose_the_aggregates():
    made = complete()
    made.metrics = ["probability", "mia_zlib"]
    assert {name for name in summary_of(made) if name in AGGREGATES} == {"mia_zlib"}
    made.metrics = ["privleak"]
    assert "privleak" in summary_of(made, reference=complete())


def test_a_score_of_the_users_own():
    made = evaluation(forget=rows(length=[1.0, 4.0]), retain=rows(probability=[1.0]))
    longest = Score("longest", ("length",), lambda records, weights: np.full(len(weights), records.max()))
    assert summary_of(made, custom=[longest, Score("length", ("length",), mean)]) == {
        "forget/longest": 4.0,
        "forget/length": 2.5,
        "retain/probability": 1.0,
        "model_utility": 1.0,
    }


def test_intervals_are_seeded_and_hold_their_value():
    first, second, other = complete(), complete(), complete()
    summarise(first, complete())
    summarise(second, complete())
    summarise(other, seed=1)
    assert first == second
    assert other.intervals != first.intervals
    assert {"model_utility", "forget_quality", "mia", "privleak", "forget/perplexity"} <= set(first.intervals)
    assert not {"ks_forget_quality", "ks_forget_quality_log10"} & set(first.intervals)
    for name, (low, high) in first.intervals.items():
        assert low <= first.summary[name] <= high, name


def test_parts_of_one_set_share_their_resamples():
    """p and 1 - p of the same rows: their harmonic mean stays within 1/2, which independent draws would pass."""
    values = np.random.default_rng(0).random(30)
    made = evaluation(forget=rows(exact_memorization=list(values), probability=list(1 - values)))
    summarise(made)
    assert made.intervals["forget_quality"][1] <= 0.5


def test_what_is_unknown_stays_unknown():
    made = evaluation(forget=rows(probability=[None, 0.5]), retain=rows(probability=[0.5]))
    summarise(made)
    assert math.isnan(made.summary["forget/probability"])
    assert math.isnan(made.summary["forget_quality"])
    assert made.summary["model_utility"] == 0.5


def test_nothing_comes_of_nothing():
    assert summary_of(evaluation()) == {}
    assert summary_of(evaluation(forget={}, retain={}, holdout={}), reference=evaluation(forget={})) == {}


def test_the_set_of_a_role():
    assert find({"forget_b": 1, "forget": 2}, "forget") == 2
    assert find({"retain": 1, "forget_b": 2, "forget_c": 3}, "forget") == 2
    assert find({"retain": 1}, "holdout") is None


def test_without_intervals_nothing_is_drawn(monkeypatch):
    """A validation in a fit asks for none, and a thousand resamples would be most of its arithmetic."""
    rows = {str(i): {"probability": 0.1 * i, "mia": -0.1 * i, "exact_memorization": 0.5} for i in range(1, 5)}
    sets = dict.fromkeys(("forget", "retain", "holdout"), rows)
    drawn, whole = Evaluation(0, examples=sets), Evaluation(0, examples=sets)
    summarise(whole)
    monkeypatch.setattr("unlearun.records.table.SetTable.weights", lambda *_: pytest.fail("resamples were drawn"))
    summarise(drawn, intervals=False)
    assert drawn.summary == whole.summary
    assert drawn.intervals == {} != whole.intervals
