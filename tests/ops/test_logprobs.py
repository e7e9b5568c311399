"""Shapes: B rows, T tokens, N labelled tokens, V vocabulary."""

from __future__ import annotations

import math

import pytest
import torch
from allocations import Largest

from unlearun.ops import TokenStats, answer_mask, logprobs, sequence_logprobs, token_logprobs, token_stats


def test_token_logprobs_by_hand():
    """Scores (0, ln 3) are weights 1 and 3 of 4: ln 1/4 and ln 3/4."""
    logits = torch.tensor([[0.0, math.log(3)]]).repeat(2, 1)
    found = token_logprobs(logits, torch.tensor([0, 1]))
    torch.testing.assert_close(found, torch.tensor([math.log(1 / 4), math.log(3 / 4)]))


def test_token_logprobs_equal_a_log_softmax_over_the_vocabulary():
    generator = torch.Generator().manual_seed(0)
    logits = 5 * torch.randn(7, 11, generator=generator)
    labels = torch.randint(11, (7,), generator=generator)
    expected = torch.stack([logits[i].log_softmax(0)[label] for i, label in enumerate(labels)])
    torch.testing.assert_close(token_logprobs(logits, labels), expected)


def test_a_constant_on_all_scores_changes_nothing_even_a_large_one():
    logits = torch.tensor([[1.0, 2.0, 4.0]])
    label = torch.tensor([2])
    shifted = token_logprobs(logits + 1000, label)  # exp(1000) would be infinite
    torch.testing.assert_close(shifted, token_logprobs(logits, label), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("given", "expected"),
    [(torch.bfloat16, torch.float32), (torch.float16, torch.float32), (torch.float64, torch.float64)],
)
def test_half_precision_is_computed_in_fp32_and_fp64_is_kept(given, expected):
    logits = torch.tensor([[1.0, 2.0, 4.0]], dtype=given)
    found = token_logprobs(logits, torch.tensor([0]))
    assert found.dtype == expected
    assert found.item() == pytest.approx(1 - math.log(math.e + math.e**2 + math.e**4), rel=1e-6)


def test_the_gradient_is_one_hot_minus_softmax():
    """Weights 1/4 and 3/4, label 1: (0 - 1/4, 1 - 3/4)."""
    logits = torch.tensor([[0.0, math.log(3)]], requires_grad=True)
    token_logprobs(logits, torch.tensor([1])).sum().backward()
    torch.testing.assert_close(logits.grad, torch.tensor([[-0.25, 0.25]]))


@pytest.mark.parametrize("consume", [False, True])
@pytest.mark.parametrize("tokens", [1, 31, 33, 100])
def test_the_gradient_is_that_of_a_log_softmax_on_either_side_of_a_chunk(tokens, consume):
    logits, labels = some_logits(tokens)
    weights = torch.randn(tokens, dtype=torch.float64)
    found, expected = (logits.double().requires_grad_() for _ in range(2))
    (token_logprobs(found * 1, labels, consume) * weights).sum().backward()
    (expected.log_softmax(-1)[torch.arange(tokens), labels] * weights).sum().backward()
    torch.testing.assert_close(found.grad, expected.grad, rtol=1e-12, atol=1e-12)


def test_gradcheck():
    logits, labels = some_logits(40, vocabulary=5)
    assert torch.autograd.gradcheck(lambda x: token_logprobs(x, labels), logits.double().sub(30).requires_grad_())


@pytest.mark.parametrize("consume", [False, True])
def test_the_gradient_of_half_precision_is_computed_in_fp32(consume):
    logits, labels = some_logits(40)
    logits = logits.bfloat16()
    full, half = logits.float().requires_grad_(), logits.clone().requires_grad_()
    full.log_softmax(-1)[torch.arange(40), labels].sum().backward()
    token_logprobs(half * 1, labels, consume).sum().backward()
    assert half.grad.dtype == torch.bfloat16
    torch.testing.assert_close(half.grad, full.grad.bfloat16())


def test_a_forbidden_token_gets_no_gradient():
    logits = torch.tensor([[0.0, math.log(3), -math.inf]], requires_grad=True)
    found = token_logprobs(logits, torch.tensor([1]))
    found.sum().backward()
    assert found.item() == pytest.approx(math.log(3 / 4))
    torch.testing.assert_close(logits.grad, torch.tensor([[-0.25, 0.25, 0.0]]))


def test_logits_are_left_alone_unless_they_may_be_consumed():
    """Then they are gone after one backward pass, and a second says so; else there may be several."""
    logits, labels = some_logits(40)
    logits.requires_grad_()
    before = logits.detach().clone()
    total = token_logprobs(logits, labels).sum()
    first, second = (torch.autograd.grad(total, logits, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(logits, before)

    total = token_logprobs(logits * 1, labels, consume=True).sum()
    assert torch.equal(torch.autograd.grad(total, logits, retain_graph=True)[0], first)
    with pytest.raises(RuntimeError, match="second backward pass"):
        torch.autograd.grad(total, logits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_tensor_as_large_as_the_logits_is_made_but_the_gradient(dtype):
    logits, labels = some_logits(400)
    for consume in (True, False):
        scores = logits.to(dtype).requires_grad_() * 1
        with Largest() as forward:
            total = token_logprobs(scores, labels, consume).sum()
        with Largest() as backward:
            torch.autograd.grad(total, scores)
        assert max(forward.sizes) <= 64 * 50
        assert [size for size in backward.sizes if size > 64 * 50] == ([] if consume else [400 * 50])


def reference_stats(logits, labels):
    """Token by token in float64, the deviation about the mean."""
    rows = []
    for scores, label in zip(logits.double(), labels, strict=True):
        logprobs = scores.log_softmax(0)
        logprobs = logprobs[logprobs.isfinite()]  # what is forbidden has no part in a mean
        weights = logprobs.exp()
        mean = (weights * logprobs).sum()
        deviation = (weights * (logprobs - mean) ** 2).sum().sqrt()
        rows.append((scores.log_softmax(0)[label], scores.argmax() == label, mean, deviation))
    return TokenStats(*map(torch.stack, zip(*rows, strict=True)))


def assert_stats(found, expected, tolerance):
    assert torch.equal(found.hits, expected.hits)
    for name in ("logprobs", "mean", "deviation"):
        value, right = getattr(found, name), getattr(expected, name)
        torch.testing.assert_close(value.double(), right, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: n + m)


def some_logits(tokens, vocabulary=50, seed=0):
    """Some rows are flat and some are sharp, and every third label is the argmax."""
    generator = torch.Generator().manual_seed(seed)
    sharpness = torch.logspace(-2, 1.5, tokens).unsqueeze(-1)
    logits = sharpness * torch.randn(tokens, vocabulary, generator=generator) + 30
    labels = torch.randint(vocabulary, (tokens,), generator=generator)
    labels[::3] = logits[::3].argmax(-1)
    return logits, labels


def test_token_stats_by_hand():
    """Weights 1/4 and 3/4: μ is their mean logarithm, and two points of distance ln 3 deviate by √(1/4 · 3/4) ln 3."""
    logits = torch.tensor([[0.0, math.log(3)]]).repeat(2, 1)
    stats = token_stats(logits, torch.tensor([0, 1]))
    assert stats.hits.tolist() == [False, True]
    torch.testing.assert_close(stats.logprobs, torch.tensor([math.log(1 / 4), math.log(3 / 4)]))
    torch.testing.assert_close(stats.mean, torch.full((2,), math.log(1 / 4) / 4 + math.log(3 / 4) * 3 / 4))
    torch.testing.assert_close(stats.deviation, torch.full((2,), math.sqrt(3 / 16) * math.log(3)))


def test_token_stats_of_an_even_and_of_a_sure_distribution():
    """Even: every log p is -ln 4, so nothing deviates. Sure: log p is 0, and what is left out weighs e^-200."""
    logits = torch.tensor([[7.0, 7.0, 7.0, 7.0], [200.0, 0.0, 0.0, 0.0]])
    stats = token_stats(logits, torch.tensor([3, 0]))
    torch.testing.assert_close(stats.mean, torch.tensor([-math.log(4), 0.0]))
    assert stats.deviation.tolist() == [0, 0]
    assert stats.hits.tolist() == [False, True]  # of equals the first is taken


@pytest.mark.parametrize("tokens", [1, 31, 32, 33, 100])
def test_token_stats_equal_a_float64_reference_on_either_side_of_a_chunk(tokens):
    logits, labels = some_logits(tokens)
    assert_stats(token_stats(logits, labels), reference_stats(logits, labels), tolerance=2e-5)
    assert_stats(token_stats(logits.double(), labels), reference_stats(logits, labels), tolerance=1e-9)


def test_token_stats_of_a_large_vocabulary():
    """Fifty thousand summands in fp32."""
    logits, labels = some_logits(5, vocabulary=50_000)
    assert_stats(token_stats(logits, labels), reference_stats(logits, labels), tolerance=5e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_token_stats_of_half_precision_are_computed_in_fp32(dtype):
    logits, labels = some_logits(40)
    logits = logits.to(dtype)
    found = token_stats(logits, labels)
    assert {value.dtype for value in found} == {torch.float32, torch.bool}
    assert_stats(found, reference_stats(logits, labels), tolerance=2e-5)


def test_forbidden_tokens_have_no_part_in_token_stats():
    """Scores of -inf give the numbers of the vocabulary without them, and a forbidden label is impossible."""
    logits, labels = some_logits(40)
    labels %= 20
    forbidden = torch.cat([logits, torch.full((40, 3), -torch.inf)], dim=-1)
    assert_stats(token_stats(forbidden, labels), reference_stats(logits, labels), tolerance=2e-5)
    impossible = token_stats(forbidden, torch.full((40,), 51))
    assert impossible.logprobs.isneginf().all()
    assert not impossible.hits.any()
    assert impossible.deviation.isfinite().all()


def test_token_stats_of_nothing():
    for value in token_stats(torch.zeros(0, 7), torch.zeros(0, dtype=torch.long)):
        assert value.shape == (0,)


def test_token_stats_take_a_few_tokens_at_a_time(monkeypatch):
    """So that what is made on the way, fp32 copies of bf16 logits above all, does not grow with N."""
    reduce, seen = logprobs._reduce, []
    monkeypatch.setattr(logprobs, "_reduce", lambda *chunk: (seen.append(len(chunk[0])), reduce(*chunk))[1])
    token_stats(*some_logits(1000))
    assert sum(seen) == 1000
    assert max(seen) <= 64


def test_a_gradient_goes_through_the_logprobs_of_token_stats():
    """It is one-hot minus softmax, over chunks too."""
    logits, labels = some_logits(40)
    logits = logits.double().requires_grad_()
    stats = token_stats(logits, labels)
    assert not stats.mean.requires_grad
    assert not stats.deviation.requires_grad
    stats.logprobs.sum().backward()
    expected = torch.nn.functional.one_hot(labels, 50) - logits.detach().softmax(-1)
    torch.testing.assert_close(logits.grad, expected)


def test_answer_mask_leaves_out_the_first_token_and_the_labels_alone():
    labels = torch.tensor([[5, 6, -100], [-100, 0, 7]])  # 0 is a token like others
    assert answer_mask(labels).tolist() == [[False, True, False], [False, True, True]]
    assert labels.tolist() == [[5, 6, -100], [-100, 0, 7]]


def test_sequence_logprobs_sum_only_what_is_labelled():
    """Row 0: -1 - 2 = -3 of two tokens. Row 1: -8 of one, whatever stands beside it. Row 2: nothing."""
    logprobs = torch.tensor([[0.0, -1.0, -2.0], [-99.0, -8.0, -99.0], [-1.0, -1.0, -1.0]])
    mask = torch.tensor([[False, True, True], [False, True, False], [False, False, False]])
    total, count = sequence_logprobs(logprobs, mask)
    assert total.tolist() == [-3, -8, 0]
    assert count.tolist() == [2, 1, 0]
