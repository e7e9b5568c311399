"""Scores that are higher for members, worked out by hand. The harness of test_example_metric.py has the rest."""

from __future__ import annotations

import math
import zlib

import pytest
import torch
from metrics.questions import by_hand

from unlearun.errors import UnlearunError
from unlearun.metrics import GradientNorm, MembershipScore


def compute(metric, *rows, reference=None, means=None, deviations=None, **columns):
    stats, batch = by_hand(*rows, **columns)
    spread = {}
    for name, given in (("mean", means), ("deviation", deviations)):
        if given is not None:
            spread[name] = torch.zeros_like(stats.logprobs).masked_scatter(batch.mask, torch.tensor(given).double())
    metric.update(stats._replace(**spread), batch, reference)
    return metric.compute().item()


def test_loss_is_the_mean_log_probability():
    """-6 / 3."""
    assert compute(MembershipScore("loss"), [-1.0, -2.0, -3.0]) == -2


def test_zlib_is_divided_by_the_compressed_bytes_of_the_answer():
    """Bytes of UTF-8 are compressed: ø has two."""
    size = len(zlib.compress("Tromsø".encode()))
    assert size == len("Tromsø") + 1 + 8
    assert compute(MembershipScore("zlib"), [-1.0, -2.0, -3.0], text=["Tromsø"]) == pytest.approx(-2 / 15)


@pytest.mark.parametrize(
    ("count", "value"),
    [(1, -1), (2, -2), (4, -4), (5, -4.5), (7, -6.5), (8, -7), (10, -8.5)],  # of -count the lowest 1, 1, 1, 2, 2, 3, 4
)
def test_min_k_is_the_mean_of_the_lowest_forty_percent_rounded_down_but_one(count, value):
    row = [-float(i) for i in range(1, count + 1)]
    assert compute(MembershipScore("min_k"), row) == value
    assert compute(MembershipScore("min_k"), row[::-1]) == value


def test_min_k_of_another_share():
    """0.75 of four tokens are three: (-4 - 3 - 2) / 3."""
    assert compute(MembershipScore("min_k", share=0.75), [-1.0, -4.0, -2.0, -3.0]) == -3


def test_min_k_plus_plus_reads_distances_from_the_mean_in_deviations():
    """(-1 + 2) / 0.5 = 2, (-6 + 2) / 4 = -1, (-3 + 1) / 0.5 = -4, (-1 + 1) / 1 = 0, (-4 + 1) / 2 = -1.5.

    Of five the lowest two are -4 and -1.5. The lowest log-probabilities, -6 and -4, would give -1 and -1.5.
    """
    value = compute(
        MembershipScore("min_k_plus_plus"),
        [-1.0, -6.0, -3.0, -1.0, -4.0],
        means=[-2.0, -2.0, -1.0, -1.0, -1.0],
        deviations=[0.5, 4.0, 0.5, 1.0, 2.0],
    )
    assert value == pytest.approx(-2.75)


def test_min_k_plus_plus_of_a_distribution_without_spread_stays_a_number():
    """The model is sure of the label, or of a few tokens alike: nothing deviates, and nothing is divided by 0."""
    row = [0.0, -math.log(2)]
    assert compute(MembershipScore("min_k_plus_plus"), row, means=row, deviations=[0, 0]) == pytest.approx(0)


def test_the_reference_attack_counts_what_another_model_would_know_too():
    """(-6 + 9) / 3 = 1 and (-4 + 2) / 2 = -1, of a model that is surer of the second; their mean is 0."""
    metric = MembershipScore("reference")
    value = compute(metric, [-1.0, -2.0, -3.0], [-2.0, -2.0], reference=torch.tensor([-9.0, -2.0]))
    assert [record["mia_reference"] for record in metric.per_example().values()] == [1, -1]
    assert value == 0


@pytest.mark.parametrize(
    ("attack", "lacking"), [("zlib", "texts"), ("min_k_plus_plus", "deviation"), ("reference", "reference=")]
)
def test_what_an_attack_lacks_is_named(attack, lacking):
    stats, batch = by_hand([-1.0])
    batch.texts = None
    with pytest.raises(ValueError, match=lacking):
        MembershipScore(attack).update(stats._replace(mean=None), batch)


def test_a_reference_is_for_one_batch():
    """It is not kept for the next one."""
    metric = MembershipScore("reference")
    metric.update(*by_hand([-1.0]), torch.tensor([-2.0]))
    with pytest.raises(ValueError, match="reference="):
        metric.update(*by_hand([-1.0]))


def test_an_attack_that_does_not_exist():
    with pytest.raises(UnlearunError, match="Did you mean 'min_k'"):
        MembershipScore("mink")


@pytest.mark.parametrize(
    ("attack", "title"),
    [
        ("loss", "mia"),
        ("zlib", "mia_zlib"),
        ("min_k", "mia_min_k"),
        ("min_k_plus_plus", "mia_min_k_plus_plus"),
        ("reference", "mia_reference"),
    ],
)
def test_records_are_called_as_in_the_summary(attack, title):
    """Two attacks on one set have records of their own."""
    assert MembershipScore(attack).columns == (title,)
    assert MembershipScore.columns == ("membership_score",)


def test_a_shorter_gradient_is_a_member():
    """Lengths 3 and 1: -3 and -1, in double precision whatever they came in."""
    metric = GradientNorm()
    metric.update(torch.tensor([3.0, 1.0], dtype=torch.bfloat16), torch.tensor([8, 2]))
    assert metric.compute().item() == -2
    assert metric.per_example() == {2: {"mia_grad_norm": -1}, 8: {"mia_grad_norm": -3}}
