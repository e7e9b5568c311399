"""Perplexity, probability and exact memorization, by hand and against ten lines of plain Python."""

from __future__ import annotations

import math
import pickle

import pytest
import torch
from conftest import make_llama, random_batch

from unlearun.data import Batch
from unlearun.metrics import ExactMemorization, Perplexity, Probability
from unlearun.models import Policy
from unlearun.ops import TokenStats

METRICS = [Perplexity, Probability, ExactMemorization]


def make_rows(*rows, ids=None):
    """Rows of (log-probabilities, hits, ends); before each stands a prompt of two tokens, after it the padding."""
    longest = 2 + max(len(logprobs) for logprobs, _, _ in rows)
    logprobs, hits = torch.zeros(len(rows), longest), torch.zeros(len(rows), longest, dtype=torch.bool)
    labels = torch.full((len(rows), longest), -100)
    for row, (values, hit, _) in enumerate(rows):
        stop = 2 + len(values)
        logprobs[row, 2:stop], hits[row, 2:stop], labels[row, 2:stop] = (
            torch.tensor(values),
            torch.tensor(hit).bool(),
            5,
        )
    batch = Batch(
        torch.full_like(labels, 5),
        torch.ones_like(labels),
        labels,
        example_id=torch.arange(len(rows)) if ids is None else torch.tensor(ids),
        ends=torch.tensor([ends for _, _, ends in rows]),
    )
    return TokenStats(logprobs, hits), batch


# Two answers with their eos, and a cut one of a single token.
FIRST = ([-1.0, -2.0, -3.0], [1, 0, 1], True)
SECOND = ([-0.5, -0.5, -0.5, -0.5, -2.0], [1, 1, 1, 1, 0], True)
THIRD = ([-0.25], [0], False)


def plain(metric, rows):
    """The same from lists of numbers, with nothing of the package."""
    totals = [sum(logprobs) for logprobs, _, _ in rows]
    counts = [len(logprobs) for logprobs, _, _ in rows]
    if metric is Perplexity:
        each = [math.exp(-total / count) for total, count in zip(totals, counts, strict=True)]
        return math.exp(-sum(totals) / sum(counts)), each
    if metric is Probability:
        each = [math.exp(total / count) for total, count in zip(totals, counts, strict=True)]
    else:
        contents = [hits[:-1] if ends and len(hits) > 1 else hits for _, hits, ends in rows]
        each = [sum(hits) / len(hits) for hits in contents]
    return sum(each) / len(each), each


def random_rows(count, seed):
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(count):
        length = int(torch.randint(1, 7, (1,), generator=generator))
        logprobs = (-3 * torch.rand(length, generator=generator)).tolist()
        hits = (torch.rand(length, generator=generator) < 0.5).tolist()
        rows.append((logprobs, hits, bool(torch.rand(1, generator=generator) < 0.7)))
    return rows


def compute(metric_class, *batches):
    metric = metric_class()
    for stats, batch in batches:
        metric.update(stats, batch)
    return metric.compute().item()


# ---- by hand ----------------------------------------------------------------------------------------------------


def test_perplexity_by_hand():
    """All tokens alike: S = -6, -4 and -0.25 over 3 + 5 + 1 = 9 tokens, exp(10.25 / 9) = exp(1.138889) = 3.12329."""
    assert compute(Perplexity, make_rows(FIRST, SECOND, THIRD)) == pytest.approx(3.12329, abs=1e-5)


def test_probability_by_hand():
    """exp(-2) = 0.135335, exp(-0.8) = 0.449329 and exp(-0.25) = 0.778801; their mean is 1.363465 / 3 = 0.454488."""
    assert compute(Probability, make_rows(FIRST, SECOND, THIRD)) == pytest.approx(0.454488, abs=1e-6)


def test_exact_memorization_by_hand():
    """Without eos: 1 of 2, 4 of 4; the cut answer has none, so 0 of 1; the mean is 1.5 / 3 = 0.5."""
    assert compute(ExactMemorization, make_rows(FIRST, SECOND, THIRD)) == pytest.approx(0.5)


def test_exact_memorization_counts_eos_only_where_there_is_nothing_else():
    """A bare eos that is hit is 1, one that is missed 0; where the row is cut, its last token is an answer token.

    [hit, miss] with eos: 1 of 1. The same without: 1 of 2 = 0.5.
    """
    assert compute(ExactMemorization, make_rows(([-1.0], [1], True))) == 1
    assert compute(ExactMemorization, make_rows(([-1.0], [0], True))) == 0
    assert compute(ExactMemorization, make_rows(([-1.0, -1.0], [1, 0], True))) == 1
    assert compute(ExactMemorization, make_rows(([-1.0, -1.0], [1, 0], False))) == 0.5


def test_exact_memorization_of_a_batch_made_by_hand():
    """Without ``ends`` no row has an eos: 2 of 3."""
    stats, batch = make_rows(FIRST)
    batch.ends = None
    assert compute(ExactMemorization, (stats, batch)) == pytest.approx(2 / 3)


@pytest.mark.parametrize(("metric", "value"), [(Perplexity, math.e), (Probability, 1 / math.e), (ExactMemorization, 1)])
def test_one_token_answer(metric, value):
    """One token of log-probability -1, hit: exp(1), exp(-1) and 1."""
    assert compute(metric, make_rows(([-1.0], [1], False))) == pytest.approx(value)


@pytest.mark.parametrize(("metric", "value"), [(Perplexity, 1), (Probability, 1), (ExactMemorization, 1)])
def test_perfect_model(metric, value):
    assert compute(metric, make_rows(([0.0, 0.0], [1, 1], True), ([0.0], [1], True))) == value


@pytest.mark.parametrize("metric", METRICS)
def test_declares_what_torchmetrics_asks(metric):
    assert metric.is_differentiable is False
    assert metric.full_state_update is False
    assert metric.higher_is_better is (metric is not Perplexity)
    assert metric.title == {Perplexity: "perplexity", Probability: "probability"}.get(metric, "exact_memorization")


# ---- the harness: against plain Python, per batch, over an epoch, pickled ---------------------------------------


@pytest.mark.parametrize("metric_class", METRICS)
def test_against_plain_python(metric_class):
    """Three batches, the last one smaller: each batch's own value, then that of the epoch, then again after a reset."""
    rows = random_rows(8, seed=1)
    parts = [rows[:3], rows[3:6], rows[6:]]
    starts = [0, 3, 6]
    metric = metric_class()
    for _ in range(2):
        for start, part in zip(starts, parts, strict=True):
            stats, batch = make_rows(*part, ids=list(range(start, start + len(part))))
            assert metric(stats, batch).item() == pytest.approx(plain(metric_class, part)[0], rel=1e-6)
        value, each = plain(metric_class, rows)
        assert metric.compute().item() == pytest.approx(value, rel=1e-6)
        assert metric.per_example() == pytest.approx(dict(enumerate(each)), rel=1e-6)
        metric = pickle.loads(pickle.dumps(metric))
        assert metric.compute().item() == pytest.approx(value, rel=1e-6)
        metric.reset()


@pytest.mark.parametrize("metric_class", METRICS)
def test_value_does_not_depend_on_the_batches(metric_class):
    """8 rows in one batch equal 8 batches of one row in another order."""
    rows = random_rows(8, seed=2)
    whole = compute(metric_class, make_rows(*rows))
    singles = [make_rows(row, ids=[i]) for i, row in enumerate(rows)]
    assert compute(metric_class, *singles[::-1]) == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("metric_class", METRICS)
def test_prompt_and_padding_change_nothing(metric_class):
    """Whatever stands at tokens without a label, also nan, is not read."""
    stats, batch = make_rows(FIRST, SECOND, THIRD)
    expected = compute(metric_class, (stats, batch))
    logprobs = torch.where(batch.mask, stats.logprobs, -7.0)
    assert compute(metric_class, (TokenStats(logprobs, stats.hits | ~batch.mask), batch)) == expected


@pytest.mark.parametrize("metric_class", METRICS)
def test_bfloat16_stats(metric_class):
    """Sums are made in float64 of the rounded numbers, here of 200 tokens, where sums in bfloat16 would be far off."""
    logprobs = torch.full((200,), -0.3).bfloat16()
    stats, batch = make_rows((logprobs.tolist(), [1] * 200, False))
    stats = TokenStats(stats.logprobs.bfloat16(), stats.hits)
    rounded = float(logprobs[0])
    value = {Perplexity: math.exp(-rounded), Probability: math.exp(rounded), ExactMemorization: 1.0}[metric_class]
    assert compute(metric_class, (stats, batch)) == pytest.approx(value, rel=1e-12)


def test_long_answers_do_not_underflow():
    """2000 tokens of -10 have S = -20000; the mean stays -10, and exp(-10) = 4.539993e-05."""
    rows = make_rows(([-10.0] * 2000, [0] * 2000, False))
    assert compute(Probability, rows) == pytest.approx(4.539993e-05, rel=1e-6)
    assert compute(Perplexity, rows) == pytest.approx(math.exp(10), rel=1e-9)


def test_of_a_model():
    """From the network to the number, against the model's own loss: HF's mean NLL over labels is log perplexity."""
    model, batch = make_llama(), random_batch()
    loss = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels).loss
    got = compute(Perplexity, (Policy(model)(batch, "stats"), batch))
    assert got == pytest.approx(loss.exp().item(), rel=1e-5)
