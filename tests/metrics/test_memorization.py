"""Whether greedy says the tokens of the answer, worked out by hand. The harness has the rest."""

from __future__ import annotations

import pytest
from metrics.questions import by_hand

from unlearun.metrics import ExactMemorization, ExtractionStrength


def compute(metric, *hits, ends=False):
    metric.update(*by_hand(*([-1.0] * len(row) for row in hits), hits=hits, ends=[ends] * len(hits)))
    return metric.compute().item()


@pytest.mark.parametrize(
    ("hits", "exact", "strength"),
    [
        ([1, 1, 1, 1], 1.0, 1.0),  # k = 0: the question is enough
        ([0, 0, 0, 0], 0.0, 0.0),  # k = 4: no suffix matches
        ([1, 1, 1, 0], 0.75, 0.0),  # nor here, whatever stands before
        ([0, 1, 1, 1], 0.75, 0.75),  # k = 1
        ([1, 0, 1, 1], 0.75, 0.5),  # k = 2: a lucky hit before the last miss extracts nothing
        ([1, 0, 0, 1], 0.5, 0.25),  # k = 3
        ([1], 1.0, 1.0),  # one token
        ([0], 0.0, 0.0),
    ],
)
def test_by_hand(hits, exact, strength):
    """EM is the share of hits; ES is 1 - k/n, k tokens of the answer being needed until all the rest is hit."""
    assert compute(ExactMemorization(), hits) == exact
    assert compute(ExtractionStrength(), hits) == strength


@pytest.mark.parametrize(
    ("hits", "exact", "strength"),
    [
        ([0, 1, 0], 0.5, 0.5),  # n = 2: the eos that is missed does not break the suffix
        ([1, 0, 1], 0.5, 0.0),  # nor does one that is hit make one
        ([1, 0], 1.0, 1.0),
        ([1], 1.0, 1.0),  # nothing but eos
        ([0], 0.0, 0.0),
    ],
)
def test_the_eos_does_not_count_unless_there_is_nothing_else(hits, exact, strength):
    assert compute(ExactMemorization(), hits, ends=True) == exact
    assert compute(ExtractionStrength(), hits, ends=True) == strength


@pytest.mark.parametrize(("metric", "value"), [(ExactMemorization, 0.75), (ExtractionStrength, 0.5)])
def test_rows_count_alike_whatever_their_length(metric, value):
    """[hit, miss] and [hit] * 5: EM is (1/2 + 1) / 2, and ES is (0 + 1) / 2."""
    assert compute(metric(), [1, 0], [1] * 5) == value


@pytest.mark.parametrize("metric", [ExactMemorization, ExtractionStrength])
def test_a_batch_that_says_nothing_of_ends_has_none(metric):
    """The third token is one of the answer: 2/3 are hits, and no suffix matches."""
    stats, batch = by_hand([-1.0] * 3, hits=[[1, 1, 0]])
    batch.ends = None
    found = metric()
    found.update(stats, batch)
    assert found.compute().item() == pytest.approx(2 / 3 if metric is ExactMemorization else 0)
