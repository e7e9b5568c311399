from __future__ import annotations

import math

import pytest
import torch
from conftest import make_llama, random_batch

from unlearun.errors import UnlearunError
from unlearun.methods import SimNPO
from unlearun.methods.simnpo import simnpo_loss


def test_value_by_hand():
    """One row with log-probs -1 and -3: -S/n = 2. With β = 2 and δ = 0.5 the argument is 2·(2 - 0.5) = 3, so the loss
    is -(2/2) log σ(3) = log(1 + e^-3) = 0.048587."""
    logprobs, mask = torch.tensor([[-1.0, -3.0]]), torch.tensor([[True, True]])
    assert simnpo_loss(logprobs, mask, beta=2.0, delta=0.5).item() == pytest.approx(0.048587, abs=1e-6)


def test_against_a_plain_loop():
    model, batch = make_llama(), random_batch()
    beta, delta = 2.5, 0.3
    losses = []
    for row in range(len(batch)):
        logprobs = model(batch.input_ids[row : row + 1]).logits[0].log_softmax(-1)
        scores = [
            logprobs[position - 1, batch.labels[row, position]].item()
            for position in range(1, batch.labels.shape[1])
            if batch.labels[row, position] != -100
        ]
        margin = beta * (-sum(scores) / len(scores) - delta)
        losses.append(2 / beta * math.log1p(math.exp(-margin)))
    method = SimNPO(model, beta=beta, delta=delta, gamma=1.0, alpha=0.0)
    loss = method.training_step({"forget": batch, "retain": batch}, 0)
    assert loss.item() == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_only_labelled_tokens_count():
    logprobs, mask = torch.tensor([[-9.0, -1.0, -2.0]]), torch.tensor([[False, True, True]])
    moved = torch.tensor([[-1.0, -1.0, -2.0]])
    assert simnpo_loss(logprobs, mask, 2.0, 0.0) == simnpo_loss(moved, mask, 2.0, 0.0)


def test_a_row_without_labels_counts_for_nothing():
    logprobs = torch.tensor([[-1.0, -2.0], [0.0, 0.0]], requires_grad=True)
    mask = torch.tensor([[True, True], [False, False]])
    loss = simnpo_loss(logprobs, mask, 2.0, 0.0)
    assert loss.item() == pytest.approx(simnpo_loss(logprobs[:1], mask[:1], 2.0, 0.0).item())
    loss.backward()
    assert logprobs.grad[1].abs().sum() == 0


def test_needs_no_reference():
    assert not SimNPO(make_llama()).needs_reference


@pytest.mark.parametrize("wrong", [{"beta": 0.0}, {"beta": -1.0}, {"delta": -0.1}, {"gamma": float("nan")}])
def test_numbers_out_of_range(wrong):
    with pytest.raises(UnlearunError, match=next(iter(wrong))):
        SimNPO(make_llama(), **wrong)
