from __future__ import annotations

import math

import pytest
import torch
from conftest import answer_tokens, elsewhere_changed, make_llama, random_batch

from unlearun.errors import UnlearunError
from unlearun.methods import SatImp
from unlearun.methods.satimp import satimp_loss
from unlearun.methods.wga import wga_loss

MASK = torch.tensor([[True, True, False]])


def test_value_by_hand():
    """Tokens of probability 1/2 and 1/4, β1 = 2, β2 = 1: (1/4)(1/2) log(1/2) + (1/16)(3/4) log(1/4) =
    -(1/8 + 3/32) log 2 = -(7/32) log 2 = -0.151626."""
    logprobs = torch.tensor([[0.5, 0.25, 0.9]]).log()
    assert satimp_loss(logprobs, MASK, beta1=2.0, beta2=1.0).item() == pytest.approx(-0.151626, abs=1e-5)


def test_against_a_plain_loop():
    model, batch = make_llama(seed=4), random_batch(seed=1)
    logprobs = [scores.log_softmax(-1)[label].item() for row in answer_tokens(model, batch) for scores, label in row]
    weights = [math.exp(lp) ** 0.5 * (1 - math.exp(lp)) ** 1.5 for lp in logprobs]
    expected = 0.1 * sum(w * lp for w, lp in zip(weights, logprobs, strict=True)) / len(logprobs)
    loss = SatImp(model, beta1=0.5, beta2=1.5, alpha=0.0).training_step({"forget": batch}, 0)
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_the_gradient_is_the_weight_and_nothing_of_the_weight_s_own():
    """∂L/∂lp = p^β1 (1-p)^β2: nothing for a certain token, nothing for an unlikely one, most in between."""
    logprobs = torch.tensor([[0.0, -40.0], [-0.1, -0.5]], dtype=torch.float64, requires_grad=True)
    satimp_loss(logprobs, torch.ones(2, 2, dtype=torch.bool), beta1=5.0, beta2=1.0).backward()
    expected = [p**5 * (1 - p) for p in (1.0, math.exp(-40), math.exp(-0.1), math.exp(-0.5))]
    assert logprobs.grad.flatten().tolist() == pytest.approx(expected)


def test_a_log_probability_that_rounding_left_above_0_is_a_certain_one():
    logprobs = torch.tensor([[1e-7, -1.0, -1.0]], requires_grad=True)
    satimp_loss(logprobs, MASK, beta1=1.0, beta2=0.5).backward()
    assert logprobs.grad[0, 0] == 0
    assert logprobs.grad.isfinite().all()


def test_without_importance_it_is_weighted_ascent():
    logprobs = torch.tensor([[-0.3, -2.0, -7.0]])
    assert satimp_loss(logprobs, MASK, 1.3, 0.0) == wga_loss(logprobs, MASK, 1.3)


def test_only_labelled_tokens_count():
    batch = random_batch()
    method = SatImp(make_llama(seed=4), beta1=0.5, alpha=0.0)
    plain, *others = (method.training_step({"forget": b}, 0).item() for b in (batch, *elsewhere_changed(batch)))
    assert others == pytest.approx([plain, plain], rel=1e-6)


@pytest.mark.parametrize("wrong", [{"beta1": -1.0}, {"beta2": -0.1}, {"beta1": float("nan")}])
def test_numbers_out_of_range(wrong):
    with pytest.raises(UnlearunError, match="beta"):
        SatImp(make_llama(), **wrong)
