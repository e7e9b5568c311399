"""Metrics made of several others, worked out by hand. The harness of test_example_metric.py has the rest."""

from __future__ import annotations

import math

import pytest
import torch
from metrics.questions import SETS, by_hand, make_batch

from unlearun.metrics import ForgetQuality, MembershipInference, ModelUtility, SetTraits

ATTACKS = ["loss", "zlib", "min_k", "min_k_plus_plus", "reference"]
P80, P50, P40, P20 = ([math.log(p)] for p in (0.8, 0.5, 0.4, 0.2))

# ---- forget quality ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kinds", "rows", "parts", "value"),
    [
        # 1 - EM = 1, 1 - ES = 1, 1 - 0.5: 3 / (1 + 1 + 2).
        ([0], [P50], ["probability"], 3 / 4),
        # The paraphrase's 0.2 takes the place of the answer's 0.5: 3 / (1 + 1 + 1 / 0.8).
        ([0, 1], [P50, P20], ["paraphrase_probability"], 3 / 3.25),
        # p_c = 0.5 and p_w = √(0.8 · 0.2) = 0.4, so 1 - 0.5 / 0.9 = 4/9: 4 / (1 + 1 + 2 + 9/4).
        ([0, 2, 3], [P50, P80, P20], ["probability", "choice"], 4 / 6.25),
        # p_c is the paraphrase's 0.2: 1 - 0.2 / 0.6 = 2/3: 4 / (1 + 1 + 1 / 0.8 + 3/2).
        ([0, 1, 2], [P50, P20, P40], ["paraphrase_probability", "choice"], 4 / 4.75),
    ],
)
def test_forget_quality_of_what_the_data_allow(kinds, rows, parts, value):
    """A single answer token that is missed, so EM and ES are 0; the parts are named."""
    metric = ForgetQuality()
    metric.update(*by_hand(*rows, hits=[[0]] * len(rows), id=[0] * len(rows), kind=kinds))
    assert metric.compute().item() == pytest.approx(value)
    assert metric.parts == [f"1-{name}" for name in ("exact_memorization", "extraction_strength", *parts)]


def test_forget_quality_is_0_where_one_part_is():
    """The answer is said word for word, however unlikely all the rest is."""
    metric = ForgetQuality()
    metric.update(*by_hand([-9.0, -9.0], hits=[[1, 1]]))
    assert metric.compute().item() == 0


# ---- model utility ----------------------------------------------------------------------------------------------


def test_model_utility_of_what_the_data_allow():
    """Probability 0.5 and ROUGE-L recall 1/2 of retain, 0.8 of facts: 3 / (2 + 2 + 1 / 0.8)."""
    metric = ModelUtility({"retain": SetTraits(), "facts": SetTraits()})
    metric.update("retain", *by_hand(P50), ["In Oslo"], ["Oslo, Norway"])
    metric.update("facts", *by_hand(P80))
    assert metric.compute().item() == pytest.approx(3 / 5.25)
    assert metric.parts == ["retain/probability", "retain/rouge", "facts/probability"]


@pytest.mark.parametrize(
    ("name", "paraphrase", "probability"),
    [
        ("facts", False, 2 / 3),  # of a utility set without paraphrases p_c / (p_c + p_w) = 0.4 / 0.6
        ("facts", True, 0.4),
        ("retain", False, 0.4),
    ],
)
def test_model_utility_normalises_where_tofu_does(name, paraphrase, probability):
    """0.4 for the answer and 0.2 for a wrong one: R = 0.5, so the truth ratio is 0.5: 2 / (1 / probability + 2)."""
    metric = ModelUtility({name: SetTraits(paraphrase=paraphrase, wrong=True)})
    metric.update(name, *by_hand(P40, P20, id=[0, 0], kind=[0, 2]))
    assert metric.compute().item() == pytest.approx(2 / (1 / probability + 2))
    assert metric.parts == [f"{name}/probability", f"{name}/truth_ratio"]


def test_texts_of_a_batch_with_rows_without_labels():
    """A filler has no text."""
    stats, batch = by_hand([], P50, id=[-1, 3])
    metric = ModelUtility({"retain": SetTraits()})
    metric.update("retain", stats, batch, ["Oslo"], ["Oslo"])
    metric.update("retain", *by_hand([], id=[-1]), [], [])
    assert metric.compute().item() == pytest.approx(2 / 3)


# ---- membership inference ---------------------------------------------------------------------------------------


def area(attack, members, others, reference=None):
    """Rows of one token each."""
    metric = MembershipInference(attack)
    for member, values in ((True, members), (False, others)):
        stats, batch = by_hand(*([value] for value in values), text=["the cat"] * len(values))
        stats = stats._replace(deviation=torch.ones_like(stats.logprobs))
        metric.update(stats, batch, member, torch.full((len(values),), -1.0))
    return metric.compute().item()


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize(
    ("members", "others", "expected"),
    [
        ([-0.1, -0.2, -0.3], [-2.0, -3.0], 1.0),  # memorised: every member is likelier than every stranger
        ([-2.0, -3.0], [-0.1, -0.2, -0.3], 0.0),  # over-unlearned
        ([-1.0, -2.0, -3.0], [-1.0, -2.0, -3.0], 0.5),  # the same: of 9 pairs 3 are won, 3 lost and 3 tied
        ([-1.0, -2.0], [-2.0, -3.0], 0.875),  # of 4 pairs 3 are won, and the tie counts half
        ([-1.0], [-1.0, -1.0], 0.5),  # nothing but ties
    ],
)
def test_area_by_hand(attack, members, others, expected):
    """One-token answers of the same text: all attacks order them alike."""
    assert area(attack, members, others) == expected


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_memorised_set_is_told_from_strangers(attack):
    """Answers of several lengths, the members' nearly certain; a model that saw neither finds all alike."""
    metric = MembershipInference(attack)
    for name, member in (("forget", True), ("holdout", False)):
        stats, batch = make_batch(SETS[name])
        likelier = torch.where(batch.mask, stats.logprobs / 1000 if member else stats.logprobs - 20, 0)
        metric.update(stats._replace(logprobs=likelier), batch, member, torch.zeros(len(batch)))
    assert metric.compute().item() == 1


@pytest.mark.parametrize("member", [True, False])
def test_with_nobody_to_compare_there_is_no_area(member):
    metric = MembershipInference()
    metric.update(*by_hand([-1.0]), member)
    assert math.isnan(metric.compute().item())
