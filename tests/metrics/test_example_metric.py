"""Each example counts once, whoever saw it and how often."""

from __future__ import annotations

import math

import pytest
import torch
from processes import in_two_processes
from torch import Tensor

from unlearun.data import Batch
from unlearun.metrics import ExactMemorization, Perplexity, Probability
from unlearun.metrics.example_metric import MeanMetric
from unlearun.ops import TokenStats

METRICS = [Perplexity, Probability, ExactMemorization]


class Sum(MeanMetric):
    """The plainest metric: the sum of an answer's log-probabilities."""

    title = "sum"

    def measure(self, stats: TokenStats, batch: Batch) -> Tensor:
        return (stats.logprobs * batch.mask).sum(-1, keepdim=True)


def make(values, ids, labelled=None):
    """One answer token a row with the given log-probability, hit where it is above -1."""
    count = len(values)
    logprobs = torch.tensor([[0.0, value] for value in values], dtype=torch.float64)
    labels = torch.tensor([[-100, 3]] * count)
    for row in range(count):
        if labelled is not None and not labelled[row]:
            labels[row] = -100
    ids = None if ids is None else torch.tensor(ids)
    batch = Batch(torch.full_like(labels, 3), torch.ones_like(labels), labels, example_id=ids)
    return TokenStats(logprobs, logprobs > -1), batch


def feed(metric, *batches):
    for stats, batch in batches:
        metric.update(stats, batch)
    return metric


# ---- one process ------------------------------------------------------------------------------------------------


def test_duplicates_count_once():
    """Ids 7, 3, 7 and again 3: the mean of -2 and -4 is -3, not (-2 - 4 - 2 - 4) / 4 by chance: 7 comes thrice."""
    metric = feed(Sum(), make([-2, -4, -2], [7, 3, 7]), make([-4, -2], [3, 7]))
    assert metric.compute().item() == -3
    assert metric.per_example() == {3: -4, 7: -2}


def test_the_first_record_of_an_id_is_kept():
    """The same row is the same number; if rounding made two of one, which is kept must not depend on chance."""
    metric = feed(Sum(), make([-1, -5], [4, 2]), make([-9], [4]))
    assert metric.per_example() == {2: -5, 4: -1}


def test_records_are_in_order_of_ids():
    ids, records = feed(Sum(), make([-2, -4], [7, 3]), make([-1], [5])).distinct()
    assert ids.tolist() == [3, 5, 7]
    assert records.squeeze(1).tolist() == [-4, -1, -2]


def test_fillers_and_rows_without_labels_are_ignored():
    """A filler has id -1 and no labels; a row whose labels are gone counts no more, though its id is its own."""
    filler, half = make([-9], [-1], [False]), make([-9, -6], [2, 3], [False, True])
    metric = feed(Sum(), make([-2, -4], [0, 1]), filler, half)
    assert metric.compute().item() == -4
    assert metric.per_example() == {0: -2, 1: -4, 3: -6}


def test_nothing_is_not_a_number():
    """Neither without any batch, nor with fillers alone."""
    for metric in (Sum(), feed(Sum(), make([-9], [-1], [False]))):
        metric._update_count = 1  # torchmetrics would warn, rightly
        assert math.isnan(metric.compute().item())
        assert metric.per_example() == {}


def test_rows_without_ids_are_examples_of_their_own():
    """Over batches, also after rows without labels, and by forward, which resets the state between."""
    batches = [make([-9, -1, -2], None, [False, True, True]), make([-3, -4], None), make([-5], None)]
    metric = feed(Sum(), *batches)
    assert metric.compute().item() == -3
    assert metric.per_example() == {0: -1, 1: -2, 2: -3, 3: -4, 4: -5}
    metric = Sum()
    assert [metric(*batch).item() for batch in batches] == [-1.5, -3.5, -5]
    assert metric.compute().item() == -3
    assert len(metric.per_example()) == 5


def test_rows_without_ids_beside_rows_with():
    metric = feed(Sum(), make([-1, -2], None), make([-3, -4], [0, 1]), make([-3], [0]))
    assert metric.per_example() == {0: -3, 1: -4, 2: -1, 3: -2}


def test_reset_forgets():
    metric = feed(Sum(), make([-2], [0]))
    metric.reset()
    feed(metric, make([-8], [0]))
    assert metric.compute().item() == -8


def test_compute_leaves_the_state():
    """A value halfway does not change that of the end."""
    metric = feed(Sum(), make([-2], [0]))
    assert metric.compute().item() == -2
    feed(metric, make([-4], [1]))
    assert metric.compute().item() == -3


# ---- two processes ----------------------------------------------------------------------------------------------

VALUES = [-0.5, -1.5, -0.25, -2.0, -3.0]


def expected(values):
    """With one token an answer, by plain Python."""
    count = len(values)
    return {
        "perplexity": math.exp(-sum(values) / count),
        "probability": sum(math.exp(value) for value in values) / count,
        "exact_memorization": sum(value > -1 for value in values) / count,
    }


# For each case the batches of both processes, and the ids that count. Rows have the values of their ids.
def of(*ids):
    return make([VALUES[i] for i in ids], list(ids))


FILLER = make([-9.0], [-1], [False])
CASES = {
    "five rows on two processes": ([[of(0, 2), of(4)], [of(1, 3)]], [0, 1, 2, 3, 4]),
    "the sampler repeats rows to make it even": ([[of(0, 2), of(4)], [of(1, 3), of(0)]], [0, 1, 2, 3, 4]),
    "a filler where there is no row": ([[of(0, 2), of(4)], [of(1, 3), FILLER]], [0, 1, 2, 3, 4]),
    "one process has fillers only": ([[of(0, 1)], [FILLER]], [0, 1]),
    "a single example": ([[of(3)], [FILLER]], [3]),
    "the same example on both": ([[of(2)], [of(2)]], [2]),
}


@pytest.fixture(scope="module")
def computed():
    """All metrics, all cases, in one pair of processes: starting these is what takes the time."""
    results = in_two_processes([metric() for metric in METRICS], [shares for shares, _ in CASES.values()])
    return [dict(zip(CASES, result, strict=True)) for result in results]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("metric", METRICS)
def test_two_processes_equal_one(computed, metric, case):
    """Both processes have the value and the records of one process that saw every row once."""
    shares, ids = CASES[case]
    alone = metric()
    for i in ids:
        feed(alone, of(i))
    assert alone.compute().item() == pytest.approx(expected([VALUES[i] for i in ids])[metric.title], rel=1e-9)
    for process in computed:
        value, records = process[case][metric.title]
        assert value == pytest.approx(alone.compute().item(), rel=1e-12)
        assert records == pytest.approx(alone.per_example())
        assert list(records) == ids
    assert len(shares) == 2


@pytest.mark.parametrize("case", CASES)
def test_suite_in_two_processes(computed, case):
    """The evaluation is the same on both, and its records are those of all rows."""
    ids = CASES[case][1]
    first, second = (process[case]["suite"] for process in computed)
    assert first == second
    summary = {f"set/{name}": value for name, value in expected([VALUES[i] for i in ids]).items()}
    assert {name: first.summary[name] for name in summary} == pytest.approx(summary)
    assert list(first.examples["set"]) == [str(i) for i in ids]
    assert first.examples["set"][str(ids[0])]["probability"] == pytest.approx(math.exp(VALUES[ids[0]]))
