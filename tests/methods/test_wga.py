from __future__ import annotations

import math

import pytest
import torch
from conftest import answer_tokens, elsewhere_changed, make_llama, random_batch

from unlearun.errors import UnlearunError
from unlearun.methods import WGA
from unlearun.methods.grad_ascent import grad_ascent_loss
from unlearun.methods.wga import wga_loss

MASK = torch.tensor([[True, True, False]])


def test_value_by_hand():
    """Tokens of probability 1/2 and 1/4, β = 2: (1/4) log(1/2) + (1/16) log(1/4) = -(3/8) log 2 = -0.259930."""
    logprobs = torch.tensor([[0.5, 0.25, 0.9]]).log()
    assert wga_loss(logprobs, MASK, beta=2.0).item() == pytest.approx(-0.259930, abs=1e-5)


def test_against_a_plain_loop():
    model, batch, beta = make_llama(seed=4), random_batch(seed=1), 0.7
    logprobs = [scores.log_softmax(-1)[label].item() for row in answer_tokens(model, batch) for scores, label in row]
    expected = sum(math.exp(lp) ** beta * lp for lp in logprobs) / len(logprobs)
    loss = WGA(model, beta=beta, alpha=0.0).training_step({"forget": batch}, 0)
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_the_gradient_is_the_weight_and_nothing_of_the_weight_s_own():
    """∂L/∂lp = p^β: an unlikely token is hardly pushed, and a likely one as in gradient ascent."""
    logprobs = torch.tensor([[-0.01, -5.0, -3.0]], dtype=torch.float64, requires_grad=True)
    wga_loss(logprobs, MASK, beta=1.0).backward()
    assert logprobs.grad[0].tolist() == pytest.approx([math.exp(-0.01), math.exp(-5.0), 0.0])


def test_beta_of_0_is_gradient_ascent():
    logprobs = torch.tensor([[-0.3, -2.0, -7.0]])
    assert wga_loss(logprobs, MASK, 0.0) == grad_ascent_loss(logprobs, MASK)


def test_only_labelled_tokens_count():
    batch = random_batch()
    method = WGA(make_llama(seed=4), alpha=0.0)
    plain, *others = (method.training_step({"forget": b}, 0).item() for b in (batch, *elsewhere_changed(batch)))
    assert others == pytest.approx([plain, plain], rel=1e-6)


@pytest.mark.parametrize("wrong", [-1.0, float("nan")])
def test_numbers_out_of_range(wrong):
    with pytest.raises(UnlearunError, match="beta"):
        WGA(make_llama(), beta=wrong)
