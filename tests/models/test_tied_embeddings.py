"""The gradient of a tied embedding is the same however it comes about, and dense."""

from __future__ import annotations

import pytest
import torch
from allocations import Largest
from conftest import random_batch
from families import VOCABULARY, make_family

from unlearun.models import Policy
from unlearun.models.tied_embeddings import only_seen_tokens

TIED = ("llama-tied", "gemma", "gemma2", "gemma3", "gpt2", "opt")


def gradients(model, batch, want):
    model.zero_grad()
    found = Policy(model)(batch, want)
    (found * torch.linspace(1, 2, found.numel(), dtype=found.dtype).view_as(found)).sum().backward()
    return {name: weight.grad for name, weight in model.named_parameters()}


@pytest.mark.parametrize("want", ["logprobs", "logits"])
@pytest.mark.parametrize("family", TIED)
def test_equals_the_dense_gradient(family, want):
    model = make_family(family)
    embedding = model.get_input_embeddings()
    assert embedding.weight is model.get_output_embeddings().weight
    batch = random_batch(rows=4, vocabulary=VOCABULARY)
    found, seen = {}, []
    handle = embedding.register_forward_pre_hook(lambda module, _: seen.append(module.sparse))
    for tied in (True, False):
        if not tied:  # the same numbers in a head of its own: then the two gradients are to be added by hand
            model.get_output_embeddings().weight = torch.nn.Parameter(embedding.weight.detach().clone())
        found[tied] = gradients(model, batch, want)
    handle.remove()
    assert seen[-1] is False
    assert True in seen
    assert embedding.sparse is False
    names = {id(weight): name for name, weight in model.named_parameters()}
    inner, outer = (names[id(one.weight)] for one in (embedding, model.get_output_embeddings()))
    together = found[False].pop(inner) + found[False].pop(outer)
    torch.testing.assert_close(found[True].pop(inner), together, rtol=1e-9, atol=1e-9)
    assert found[True].keys() == found[False].keys()
    for name, gradient in found[True].items():
        torch.testing.assert_close(gradient, found[False][name], rtol=1e-9, atol=1e-9)


def test_no_dense_gradient_of_the_embedding_is_made_beside_the_heads():
    model = make_family("llama-tied")
    policy, batch = Policy(model), random_batch(rows=2, vocabulary=VOCABULARY)
    policy(batch, "logprobs")
    with Largest() as made:
        policy(batch, "logprobs").sum().backward()
    assert made.calls["aten.embedding.default"] == 1
    assert made.calls["aten.embedding_dense_backward.default"] == 0


@pytest.mark.parametrize("want", ["states", "hidden"])
def test_without_the_head_the_gradient_is_dense(want):
    model = make_family("llama-tied")
    Policy(model)(random_batch(vocabulary=VOCABULARY), want, 1).sum().backward()
    assert not model.get_input_embeddings().weight.grad.is_sparse


def test_a_setting_of_the_users_own_comes_back():
    model = make_family("llama-tied")
    model.get_input_embeddings().sparse = True
    with only_seen_tokens(model):
        pass
    assert model.get_input_embeddings().sparse is True
