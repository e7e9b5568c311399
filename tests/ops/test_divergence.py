"""Shapes: N labelled tokens, V vocabulary."""

from __future__ import annotations

import math

import pytest
import torch
from allocations import Largest
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


def plain_kl(reference, logits):
    """As the formula is written, over all tokens at once."""
    expected = reference.log_softmax(-1)
    return (expected.exp() * (expected - logits.log_softmax(-1))).sum(-1)


@pytest.mark.parametrize("tokens", [1, 31, 33, 100])
def test_value_and_gradient_are_those_of_the_formula_on_either_side_of_a_chunk(tokens):
    generator = torch.Generator().manual_seed(0)
    reference, logits, weights = (3 * torch.randn(tokens, 9, generator=generator).double() for _ in range(3))
    found, expected = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    for function, variable in ((token_kl, found), (plain_kl, expected)):
        (function(reference, variable) * weights[:, 0]).sum().backward()
    torch.testing.assert_close(token_kl(reference, logits), plain_kl(reference, logits), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.grad, expected.grad, rtol=1e-12, atol=1e-12)


def test_gradcheck_and_none_to_the_reference():
    reference, logits = (2 * torch.randn(2, 40, 5, dtype=torch.float64)).unbind()
    assert torch.autograd.gradcheck(lambda ours: token_kl(reference, ours), logits.requires_grad_())
    reference.requires_grad_()
    token_kl(reference, logits).sum().backward()
    assert reference.grad is None


def test_half_precision_gets_its_gradient_in_half_precision():
    reference, logits = (2 * torch.randn(2, 40, 5)).bfloat16().unbind()
    full = logits.detach().float().requires_grad_()
    plain_kl(reference.float(), full).sum().backward()
    logits.requires_grad_()
    token_kl(reference, logits).sum().backward()
    assert logits.grad.dtype == torch.bfloat16
    torch.testing.assert_close(logits.grad, full.grad.bfloat16())


def test_forbidden_tokens_have_no_part():
    """Both forbid a token: as if it were not there. Ref alone: it adds nothing. π alone: infinite."""
    never = torch.full((1, 1), -torch.inf)
    logits = torch.cat([QUARTERS, never], dim=-1).requires_grad_()
    both = token_kl(torch.cat([HALVES, never], dim=-1), logits)
    both.sum().backward()
    assert both.item() == pytest.approx(0.5 * math.log(4 / 3))
    torch.testing.assert_close(logits.grad, torch.tensor([[0.25 - 0.5, 0.75 - 0.5, 0.0]]))
    even = torch.zeros(1, 3)  # ½ ln (½ · 3) twice
    assert token_kl(torch.cat([HALVES, never], dim=-1), even).item() == pytest.approx(math.log(1.5))
    assert token_kl(even, torch.cat([HALVES, never], dim=-1)).item() == math.inf


def test_no_tokens():
    nothing = torch.zeros(0, 7, requires_grad=True)
    found = token_kl(torch.zeros(0, 7), nothing)
    assert found.shape == (0,)
    found.sum().backward()
    assert nothing.grad.shape == (0, 7)


@pytest.mark.parametrize("consume", [False, True])
def test_only_the_gradient_is_as_large_as_the_logits_and_not_even_that_where_it_may_take_their_place(consume):
    reference, scores = torch.randn(2, 400, 50)
    logits = scores.requires_grad_() + 0
    with Largest() as forward:
        found = token_kl(reference, logits, consume).sum()
    with Largest() as backward:
        torch.autograd.grad(found, logits)
    large = [size for size in forward.sizes + backward.sizes if size > 64 * 50]
    assert large == ([] if consume else [400 * 50] * 2)


def test_consumed_logits_give_the_same_gradient_once():
    reference, scores, weights = torch.randn(3, 70, 9).double()
    gradients = []
    for consume in (False, True):
        leaf = scores.clone().requires_grad_()
        (token_kl(reference, leaf * 1, consume) * weights[:, 0]).sum().backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)
    found = token_kl(reference, scores.clone().requires_grad_() * 1, consume=True).sum()
    found.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="has consumed"):
        found.backward()
    untouched = scores.clone()
    token_kl(reference, scores, consume=True)  # no gradient is wanted, so nothing is written
    assert torch.equal(scores, untouched)


@pytest.mark.parametrize("sizes", [[100], [40, 60], [1, 33, 66]])
def test_the_reference_may_come_in_pieces(sizes):
    reference, scores, weights = torch.randn(3, 100, 9).double()
    gradients = []
    for given in (reference, iter(reference.split(sizes))):
        leaf = scores.clone().requires_grad_()
        (token_kl(given, leaf) * weights[:, 0]).sum().backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


def test_in_half_precision_the_gradient_meets_the_scale_of_the_loss_before_it_is_rounded():
    """Differences of 1e-7 are lost in float16; times a scale of 65536 they are not."""
    generator = torch.Generator().manual_seed(0)
    reference = torch.randn(8, 5000, generator=generator).half()
    scores = (reference.float() + 0.01 * torch.randn(8, 5000, generator=generator)).half()
    exact = scores.double().softmax(-1) - reference.double().softmax(-1)
    leaf = scores.clone().requires_grad_()
    (65536 / 8 * token_kl(reference, leaf * 1, consume=True).sum()).backward()
    found = leaf.grad.double() * 8 / 65536
    assert leaf.grad.dtype == torch.float16
    assert (found - exact).abs().sum() < 2e-3 * exact.abs().sum()
