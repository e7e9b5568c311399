"""The frozen start stays where it started, and out of everything that is trained or saved."""

from __future__ import annotations

import pytest
import torch
from conftest import make_gpt2, make_llama, make_tokenizer, random_batch

from unlearun.methods import GradDiff
from unlearun.models import FrozenCopy, Policy


def all_of(reference, batch):
    return reference.sequence_logprobs(batch), reference.logits(batch), reference.hidden(batch, 0)


def of_policy(policy, batch):
    """The same three by the policy itself; S is summed by hand."""
    logprobs = policy(batch, "logprobs")
    total = torch.stack([sum(row[1:], torch.zeros(())) for row in logprobs])
    return total, policy(batch, "logits"), policy(batch, "hidden", 0)


def change(policy):
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))


def same(left, right, tolerance=1e-5):
    return all(torch.allclose(a, b, rtol=0, atol=tolerance) for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize("make", [make_llama, make_gpt2])
def test_equals_the_policy_at_the_start_and_stays(make):
    policy, batch = Policy(make()), random_batch()
    reference = FrozenCopy(policy.model)
    start = all_of(reference, batch)
    assert same(start, of_policy(policy, batch))
    change(policy)
    assert not same(start, of_policy(policy, batch), tolerance=1e-2)
    assert same(start, all_of(reference, batch), tolerance=0)


def test_stays_through_optimizer_steps():
    policy, batch = Policy(make_llama()), random_batch()
    reference = FrozenCopy(policy.model)
    start = all_of(reference, batch)
    optimizer = torch.optim.SGD(policy.parameters(), lr=1.0)
    for _ in range(3):
        optimizer.zero_grad()
        policy(batch, "logprobs").sum().backward()
        optimizer.step()
    assert not same(start, of_policy(policy, batch), tolerance=1e-2)
    assert same(start, all_of(reference, batch), tolerance=0)


def test_shares_no_memory_and_keeps_ties():
    model = make_gpt2()
    reference = FrozenCopy(model)
    ours = {parameter.data_ptr() for parameter in model.parameters()}
    copied = reference.policy.model
    assert not ours & {parameter.data_ptr() for parameter in copied.parameters()}
    assert copied.lm_head.weight is copied.transformer.wte.weight


def test_wants_no_gradient():
    policy, batch = Policy(make_llama()), random_batch()
    reference = FrozenCopy(policy.model)
    assert not any(parameter.requires_grad for parameter in reference.policy.parameters())
    assert not any(value.requires_grad for value in all_of(reference, batch))
    assert all(parameter.requires_grad for parameter in policy.parameters())


def test_is_without_dropout_while_the_policy_has_it():
    """Its numbers are those of the model in eval mode, also after the policy was put in train mode again."""
    model, batch = make_gpt2(dropout=0.5), random_batch()
    policy = Policy(model)
    policy.eval()
    expected = [value.detach() for value in of_policy(policy, batch)]
    policy.train()
    reference = FrozenCopy(policy.model)
    assert policy.training
    assert not any(module.training for module in reference.policy.modules())
    assert same(all_of(reference, batch), expected)
    policy.train()
    assert same(all_of(reference, batch), all_of(reference, batch), tolerance=0)


def test_rows_without_labels_give_zero():
    batch = random_batch()
    batch.labels[1] = -100
    total = FrozenCopy(make_llama()).sequence_logprobs(batch)
    assert total.shape == (3,)
    assert total[1] == 0
    assert (total[[0, 2]] < 0).all()


def test_is_in_no_state_dict_of_a_method():
    """A method with a reference has the keys, parameters and modules of one without."""
    with_reference = GradDiff(make_llama(), retain_loss_type="KL", tokenizer=make_tokenizer())
    without = GradDiff(make_llama(), retain_loss_type="NLL", tokenizer=make_tokenizer())
    assert with_reference.needs_reference
    assert not without.needs_reference
    assert isinstance(with_reference.reference, FrozenCopy)
    assert list(with_reference.state_dict()) == list(without.state_dict())
    assert [n for n, _ in with_reference.named_parameters()] == [n for n, _ in without.named_parameters()]
    frozen = {id(module) for module in with_reference.reference.policy.modules()}
    assert not frozen & {id(module) for module in with_reference.modules()}
    # Nor does train(), as Lightning calls it on the whole method, reach it.
    with_reference.train()
    assert not with_reference.reference.policy.training


def test_a_method_with_a_model_object_freezes_it_at_once():
    """Weights that change between the constructor and the first step do not move the reference."""
    model, batch = make_llama(), random_batch()
    expected = of_policy(Policy(model), batch)
    method = GradDiff(model, retain_loss_type="KL", tokenizer=make_tokenizer())
    change(method.policy)
    assert same(all_of(method.reference, batch), expected)


def test_another_model_as_reference():
    other, batch = make_llama(seed=1), random_batch()
    expected = of_policy(Policy(other), batch)
    method = GradDiff(make_llama(), retain_loss_type="KL", reference=other, tokenizer=make_tokenizer())
    assert same(all_of(method.reference, batch), expected)
