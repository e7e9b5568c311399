"""The gradient norm of each example, against torch's own backward pass of one row."""

from __future__ import annotations

import pytest
import torch
from conftest import make_llama, random_batch

from unlearun.errors import UnlearunError
from unlearun.models import Policy, gradient_norms


@pytest.mark.parametrize("inference", [True, False])
def test_each_row_has_the_norm_of_its_own_loss(inference):
    model = make_llama()
    model.model.layers[0].requires_grad_(False)  # frozen weights count too
    batch = random_batch(rows=3)
    with torch.inference_mode(inference):
        if inference:
            batch = batch.map(torch.clone)
        norms = gradient_norms(Policy(model).eval(), batch)
    assert [weight.requires_grad for weight in model.model.layers[0].parameters()] == [False] * 9
    assert all(weight.grad is None for weight in model.parameters())
    model.requires_grad_()
    for row in range(3):
        model.zero_grad()
        single = random_batch(rows=3)
        ids, mask, labels = (t[row : row + 1] for t in (single.input_ids, single.attention_mask, single.labels))
        model(input_ids=ids, attention_mask=mask, labels=labels).loss.backward()
        expected = torch.cat([weight.grad.flatten() for weight in model.parameters()]).norm()
        assert norms[row].item() == pytest.approx(expected.item(), rel=1e-4)


def test_weights_in_few_bits_have_none_and_nothing_is_left_changed():
    model = make_llama()
    model.requires_grad_(False)
    weight = model.model.layers[0].mlp.up_proj.weight
    model.model.layers[0].mlp.up_proj.weight = torch.nn.Parameter(weight.to(torch.int8), requires_grad=False)
    with pytest.raises(UnlearunError, match="mia_grad_norm needs gradients of all weights"):
        gradient_norms(Policy(model), random_batch(rows=1))
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_a_row_without_labels_has_none():
    batch = random_batch(rows=2)
    batch.labels[1] = -100
    assert gradient_norms(Policy(make_llama()).eval(), batch)[1] == 0
