"""Shapes: B rows, T tokens, N labelled tokens, V vocabulary."""

from __future__ import annotations

import math

import pytest
import torch

from unlearun.ops import answer_mask, sequence_logprobs, token_logprobs, token_stats


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


def test_token_stats_say_whether_the_likeliest_token_is_the_label():
    logits = torch.tensor([[0.0, 1.0, -1.0], [0.0, 1.0, -1.0]])
    labels = torch.tensor([1, 2])
    logprobs, hits = token_stats(logits, labels)
    assert hits.tolist() == [True, False]
    torch.testing.assert_close(logprobs, token_logprobs(logits, labels))


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
