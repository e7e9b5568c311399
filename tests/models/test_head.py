"""A frozen head makes the logits that the whole model makes, whatever the architecture does to them."""

from __future__ import annotations

import pytest
import torch
from conftest import random_batch
from families import FAMILIES, SCALED, VOCABULARY, make_family
from torch import nn

from unlearun.models import CachedStates, FrozenHead, OriginalWeights, Policy


@pytest.mark.parametrize("family", [*FAMILIES, *SCALED])
def test_cached_states_and_a_frozen_head_give_the_logits_of_the_start(family):
    model = make_family(family)
    batch = random_batch(rows=4, vocabulary=VOCABULARY)
    batch.labels[2] = -100
    expected = model(batch.input_ids, attention_mask=batch.attention_mask).logits[batch.mask.roll(-1, dims=-1)].detach()
    policy = Policy(model)
    assert FrozenHead.fits(model)
    cache = CachedStates.compute(OriginalWeights(policy, keep=False), [batch], torch.device("cpu"), {})
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.5)
    torch.testing.assert_close(cache.logits(batch), expected, rtol=0, atol=1e-6)
    order = torch.tensor([3, 0, 2, 1])
    shuffled = cache.logits(batch.map(lambda tensor: tensor[order]))
    rows = expected.split(batch.mask.sum(-1).tolist())
    torch.testing.assert_close(shuffled, torch.cat([rows[i] for i in order]), rtol=0, atol=1e-6)
    nothing = batch.map(lambda tensor: tensor[2:3])
    assert cache.logits(nothing).shape == (0, expected.shape[1])


def test_a_head_that_is_more_than_a_linear_map_does_not_fit():
    model = make_family("llama")
    model.lm_head = nn.Sequential(model.lm_head)
    assert not FrozenHead.fits(model)
