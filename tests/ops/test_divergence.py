"""Shapes: N labelled tokens, V vocabulary."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from unlearun.ops import token_kl

HALVES = torch.tensor([[0.5, 0.5]]).log()
QUARTERS = torch.tensor([[0.25, 0.75]]).log()


def test_token_kl_by_hand_in_both_directions():
    """ref (1/2, 1/2), π (1/4, 3/4): ½ ln 2 + ½ ln ⅔ = ½ ln 4/3. Swapped: ¼ ln ½ + ¾ ln 3/2."""
    assert token_kl(HALVES, QUARTERS).item() == pytest.approx(0.5 * math.log(4 / 3))
    assert token_kl(QUARTERS, HALVES).item() == pytest.approx(0.25 * math.log(1 / 2) + 0.75 * math.log(3 / 2))


def test_token_kl_equals_torch_and_is_one_number_a_token():
    generator = torch.Generator().manual_seed(0)
    reference, logits = 3 * torch.randn(2, 5, 9, generator=generator)
    expected = functional.kl_div(logits.log_softmax(-1), reference.log_softmax(-1), reduction="none", log_target=True)
    torch.testing.assert_close(token_kl(reference, logits), expected.sum(-1))


def test_equal_distributions_do_not_diverge_and_do_not_pull():
    logits = QUARTERS.clone().requires_grad_()
    divergence = token_kl(QUARTERS + 7, logits)  # a constant on all scores is no difference
    divergence.sum().backward()
    torch.testing.assert_close(divergence, torch.zeros(1), atol=1e-6, rtol=0)
    torch.testing.assert_close(logits.grad, torch.zeros(1, 2), atol=1e-6, rtol=0)


def test_half_precision_is_computed_in_fp32():
    reference, logits = HALVES.bfloat16(), QUARTERS.bfloat16()
    found = token_kl(reference, logits)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, token_kl(reference.float(), logits.float()))
