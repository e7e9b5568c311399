from __future__ import annotations

import copy
import math

import pytest
import torch
from conftest import make_llama, random_batch, sequence_logprob

from unlearun.errors import UnlearunError
from unlearun.methods import DPO
from unlearun.methods.dpo import dpo_loss


def test_value_by_hand():
    """Gains 1 (alternate) and 3 (original), β = 0.5: -(2/0.5) log σ(0.5·(1 - 3)) = 4 log(1 + e) = 5.253047."""
    loss = dpo_loss(torch.tensor([1.0]), torch.tensor([3.0]), torch.tensor([2]), beta=0.5)
    assert loss.item() == pytest.approx(5.253047, abs=1e-5)


def test_against_a_plain_loop():
    start, moved = make_llama(seed=0), make_llama(seed=4)
    batch = random_batch(seed=1)
    batch.alternate = random_batch(seed=7)
    beta, losses = 0.3, []
    for row in range(len(batch)):
        alternate = sequence_logprob(moved, batch.alternate, row) - sequence_logprob(start, batch.alternate, row)
        original = sequence_logprob(moved, batch, row) - sequence_logprob(start, batch, row)
        losses.append(2 / beta * math.log1p(math.exp(-beta * (alternate - original))))
    method = DPO(moved, reference=start, beta=beta, alpha=0.0)
    loss = method.training_step({"forget": batch, "retain": batch}, 0)
    assert loss.item() == pytest.approx(sum(losses) / len(losses), rel=1e-4)


def test_starts_at_two_over_beta_log_two():
    batch = random_batch()
    batch.alternate = random_batch(seed=3)
    method = DPO(make_llama(), beta=0.1, alpha=0.0)
    assert method.training_step({"forget": batch, "retain": batch}, 0).item() == pytest.approx(20 * math.log(2))


def test_a_row_without_labels_counts_for_nothing():
    gains = torch.tensor([1.0, 0.0]), torch.tensor([3.0, 0.0])
    assert dpo_loss(*gains, torch.tensor([2, 0]), 0.5).item() == pytest.approx(5.253047, abs=1e-5)


def test_padding_changes_nothing():
    batch = random_batch()
    batch.alternate = random_batch(seed=3)
    changed = copy.deepcopy(batch)
    changed.input_ids[batch.attention_mask == 0] = 3
    changed.alternate.input_ids[batch.alternate.attention_mask == 0] = 5
    method = DPO(make_llama(seed=4), reference=make_llama(seed=0), alpha=0.0)
    plain, other = (method.training_step({"forget": b, "retain": b}, 0).item() for b in (batch, changed))
    assert other == pytest.approx(plain, rel=1e-6)


def test_missing_alternates_are_named():
    with pytest.raises(UnlearunError, match="alternate"):
        DPO(make_llama()).training_step({"forget": random_batch(), "retain": random_batch()}, 0)
