from __future__ import annotations

import pytest
import torch
from conftest import make_llama, random_batch

from unlearun.errors import UnlearunError
from unlearun.methods import GradAscent
from unlearun.methods.grad_ascent import grad_ascent_loss


def test_value_by_hand():
    """Two rows: log-probs -1 and -2 labelled, -5 not; -3 labelled. The sum of the labelled ones is -6."""
    logprobs = torch.tensor([[-1.0, -2.0, -5.0], [0.0, -3.0, 0.0]])
    mask = torch.tensor([[True, True, False], [False, True, False]])
    assert grad_ascent_loss(logprobs, mask).item() == -6.0


def test_is_the_negative_of_transformers_own_loss():
    model, batch = make_llama(), random_batch()
    expected = -model(batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels).loss
    loss = GradAscent(model, gamma=2.0).training_step({"forget": batch}, 0)
    assert loss.item() == pytest.approx(2 * expected.item(), abs=1e-5)


def test_takes_no_retain_term():
    with pytest.raises(UnlearunError, match="GradAscent has no argument"):
        GradAscent(make_llama(), alpha=1.0)


def test_missing_forget_set_is_named():
    with pytest.raises(UnlearunError, match="add forget"):
        GradAscent(make_llama()).training_step({}, 0)
