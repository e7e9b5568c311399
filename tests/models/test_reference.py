"""The frozen start stays where it started, and out of everything that is trained or saved."""

from __future__ import annotations

import pytest
import torch
from conftest import make_gpt2, make_llama, make_tokenizer, random_batch

from unlearun.errors import UnlearunError
from unlearun.methods import GradDiff
from unlearun.models import CachedLogprobs, FrozenCopy, OriginalWeights, Policy, weights_digest
from unlearun.models.reference_cache import row_keys

KINDS = {"copy": lambda policy: FrozenCopy(policy.model), "weights": OriginalWeights}


@pytest.fixture(params=KINDS)
def keep(request):
    """A way to keep the model as it is."""
    return KINDS[request.param]


def all_of(reference, batch):
    return reference.sequence_logprobs(batch), reference.logits(batch), reference.hidden(batch, (0,))[0]


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
def test_equals_the_policy_at_the_start_and_stays(make, keep):
    policy, batch = Policy(make()), random_batch()
    reference = keep(policy)
    start = all_of(reference, batch)
    assert same(start, of_policy(policy, batch))
    change(policy)
    assert not same(start, of_policy(policy, batch), tolerance=1e-2)
    assert same(start, all_of(reference, batch), tolerance=0)


def test_stays_through_optimizer_steps(keep):
    policy, batch = Policy(make_llama()), random_batch()
    reference = keep(policy)
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


def test_wants_no_gradient(keep):
    policy, batch = Policy(make_llama()), random_batch()
    reference = keep(policy)
    assert not any(value.requires_grad for value in all_of(reference, batch))
    assert all(parameter.requires_grad for parameter in policy.parameters())


def test_is_without_dropout_while_the_policy_has_it(keep):
    """Its numbers are those of the model in eval mode, also after the policy was put in train mode again."""
    model, batch = make_gpt2(dropout=0.5), random_batch()
    policy = Policy(model)
    policy.eval()
    expected = [value.detach() for value in of_policy(policy, batch)]
    policy.train()
    reference = keep(policy)
    assert same(all_of(reference, batch), expected)
    assert policy.training
    assert same(all_of(reference, batch), all_of(reference, batch), tolerance=0)


def test_rows_without_labels_give_zero(keep):
    batch = random_batch()
    batch.labels[1] = -100
    total = keep(Policy(make_llama())).sequence_logprobs(batch)
    assert total.shape == (3,)
    assert total[1] == 0
    assert (total[[0, 2]] < 0).all()


@pytest.mark.parametrize("way", ["auto", "copy"])
def test_is_in_no_state_dict_of_a_method(way):
    """A method with a reference has the keys, parameters and modules of one without."""
    with_reference = GradDiff(make_llama(), retain_loss_type="KL", tokenizer=make_tokenizer(), reference_way=way)
    without = GradDiff(make_llama(), retain_loss_type="NLL", tokenizer=make_tokenizer())
    assert with_reference.needs_reference
    assert not without.needs_reference
    assert isinstance(with_reference.reference, FrozenCopy if way == "copy" else OriginalWeights)
    assert list(with_reference.state_dict()) == list(without.state_dict())
    assert [n for n, _ in with_reference.named_parameters()] == [n for n, _ in without.named_parameters()]
    if way == "copy":
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


def test_original_weights_keep_what_is_trained_alone():
    policy, batch = Policy(make_llama()), random_batch()
    policy.requires_grad_(False)
    trained = policy.model.model.layers[0].mlp.down_proj.requires_grad_(True)
    reference = OriginalWeights(policy)
    assert f"{trained.weight.numel() * 4 / 1e9:.2f} GB" in reference.describe()
    start = of_policy(policy, batch)
    with torch.no_grad():
        trained.weight.mul_(1.5)
    moved = trained.weight.clone()
    assert same(all_of(reference, batch), start)
    assert torch.equal(trained.weight, moved)


def test_a_backward_pass_around_a_question_to_the_original_weights_is_right():
    """The gradient is that of the weights as they are, though others stood in their place in between."""
    policy, batch = Policy(make_llama()), random_batch()
    reference = OriginalWeights(policy)
    change(policy)
    policy(batch, "logprobs").sum().backward()
    expected = [weight.grad.clone() for weight in policy.parameters()]
    policy.zero_grad()
    loss = policy(batch, "logprobs").sum()
    reference.logits(batch)
    loss.backward()
    assert all(torch.equal(w.grad, g) for w, g in zip(policy.parameters(), expected, strict=True))


def test_an_error_while_it_is_asked_leaves_the_weights_as_they_were():
    policy, batch = Policy(make_llama()), random_batch()
    reference = OriginalWeights(policy)
    change(policy)
    before = [weight.clone() for weight in policy.parameters()]
    with pytest.raises(ValueError, match="needs a layer"):
        policy(batch, "hidden")
    with pytest.raises(RuntimeError), reference.running(batch.input_ids.device):
        raise RuntimeError
    assert all(torch.equal(w, b) for w, b in zip(policy.parameters(), before, strict=True))
    assert policy.training


# ---- cached log-probabilities -------------------------------------------------------------------------------------


def test_a_cache_gives_what_its_reference_gave(tmp_path):
    policy, batch = Policy(make_llama()), random_batch(rows=4)
    batch.labels[2] = -100
    expected = OriginalWeights(policy, keep=False).sequence_logprobs(batch)
    cache = CachedLogprobs.compute(OriginalWeights(policy, keep=False), [batch], {"weights": "x"})
    change(policy)
    cache.write(tmp_path)
    read = CachedLogprobs.read(tmp_path)
    assert read.origin == {"weights": "x"}
    order = torch.tensor([3, 0, 2, 1])
    shuffled = batch.map(lambda tensor: tensor[order])
    for known in (cache, read):
        assert torch.equal(known.sequence_logprobs(shuffled), expected[order])
        assert known.knows([batch])
    assert CachedLogprobs.read(tmp_path / "nowhere") is None


def test_a_row_is_known_by_its_content_alone():
    batch = random_batch()
    keys = row_keys(batch)
    assert len(set(keys)) == 3
    wider = batch.map(lambda tensor: torch.nn.functional.pad(tensor, (2, 1)) if tensor.ndim == 2 else tensor)
    assert row_keys(wider) == keys  # zeros: no token is seen there
    other_answer = batch.map(torch.clone)
    other_answer.input_ids[0, 3] += 1
    other_label = batch.map(torch.clone)
    other_label.labels[0, 2] = -100
    for changed in (other_answer, other_label):
        assert [a == b for a, b in zip(row_keys(changed), keys, strict=True)] == [False, True, True]
    with pytest.raises(UnlearunError, match="does not know a row"):
        CachedLogprobs({}, {}).sequence_logprobs(batch)


def test_the_digest_changes_with_any_weight():
    policy = Policy(make_llama())
    reference = OriginalWeights(policy)
    digest = weights_digest(reference)
    assert weights_digest(FrozenCopy(policy.model)) == digest
    change(policy)
    assert weights_digest(reference) == digest
    assert weights_digest(OriginalWeights(policy)) != digest
