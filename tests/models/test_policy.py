"""One forward for all that is asked, equal to what the architecture's own forward gives."""

from __future__ import annotations

import pytest
import torch
from conftest import make_gpt2, make_llama, random_batch
from families import FAMILIES, SCALED, VOCABULARY, make_family
from transformers import BloomConfig, BloomForCausalLM

from unlearun.data import Batch
from unlearun.errors import UnlearunError
from unlearun.models import Policy
from unlearun.models import policy as policy_module
from unlearun.ops import TokenStats

WANTED = ("logprobs", "stats", "logits")


def reference(model, batch):
    """Row by row and token by token from the full logits, in plain Python over log_softmax."""
    full = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    shape = batch.labels.shape
    logprobs, mean, deviation = (torch.zeros(shape, dtype=full.dtype) for _ in range(3))
    hits, logits = torch.zeros(shape, dtype=torch.bool), []
    for row in range(shape[0]):
        for at in range(1, shape[1]):
            label = batch.labels[row, at]
            if label != -100:
                scores = full[row, at - 1]
                logprobs[row, at] = scores.log_softmax(-1)[label]
                hits[row, at] = scores.argmax() == label
                mean[row, at] = -torch.distributions.Categorical(logits=scores).entropy()
                spread = (scores.log_softmax(-1) - mean[row, at]) ** 2
                deviation[row, at] = (spread * scores.softmax(-1)).sum().sqrt()
                logits.append(scores)
    return {
        "logprobs": logprobs,
        "stats": logprobs,
        "hits": hits,
        "mean": mean,
        "deviation": deviation,
        "logits": torch.stack(logits),
    }


def everything(policy, batch):
    stats = policy(batch, "stats")
    assert isinstance(stats, TokenStats)
    return {
        "logprobs": policy(batch, "logprobs"),
        "stats": stats.logprobs,
        "hits": stats.hits,
        "mean": stats.mean,
        "deviation": stats.deviation,
        "logits": policy(batch, "logits"),
    }


def hit_batch(model):
    """A random batch where some labels are what the model itself would say, so that hits are there to find."""
    batch = random_batch(rows=4, vocabulary=VOCABULARY)
    guesses = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits.argmax(-1)
    for at in (5, 6):
        said = guesses[:, at - 1]
        batch.labels[:, at] = torch.where(batch.labels[:, at] == -100, -100, said)
    return batch


@pytest.mark.parametrize("family", [*FAMILIES, *SCALED])
def test_equals_the_full_forward(family):
    model = make_family(family)
    batch = hit_batch(model)
    expected = reference(model, batch)
    got = everything(Policy(model), batch)
    assert expected["hits"].any()
    assert not expected["hits"][batch.mask].all()
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("family", ["gemma2", "gemma3", *SCALED])
def test_the_bare_head_would_be_wrong(family):
    """The architectures with a step behind the head show it here, so the test above has teeth."""
    model = make_family(family)
    batch = random_batch(vocabulary=VOCABULARY)
    hidden = model.base_model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state
    bare = model.get_output_embeddings()(hidden)[batch.mask.roll(-1, dims=-1)]
    assert (bare - Policy(model)(batch, "logits")).abs().max() > 0.1


def test_by_hand():
    """A head of zeros gives every one of 64 tokens the probability 1/64, so every label -6 log 2 = -4.158883."""
    model = make_family("llama", torch.float32)
    torch.nn.init.zeros_(model.lm_head.weight)
    batch = random_batch()
    logprobs = Policy(model)(batch, "logprobs")
    torch.testing.assert_close(logprobs[batch.mask], torch.full((int(batch.mask.sum()),), -4.158883))
    assert not logprobs[~batch.mask].any()


@pytest.mark.parametrize("make", [make_llama, make_gpt2])
def test_padding_and_prompt_labels_change_nothing(make):
    """Other tokens in the padding, and more of it, leave every number as it is."""
    policy = Policy(make())
    batch = random_batch(rows=4)
    expected = everything(policy, batch)

    ids = torch.where(batch.attention_mask.bool(), batch.input_ids, 3)
    assert not torch.equal(ids, batch.input_ids)
    got = everything(policy, Batch(ids, batch.attention_mask, batch.labels))
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, rtol=1e-5, atol=1e-5)

    def longer(tensor, fill):
        return torch.nn.functional.pad(tensor, (0, 5), value=fill)

    padded = Batch(longer(batch.input_ids, 11), longer(batch.attention_mask, 0), longer(batch.labels, -100))
    got = everything(policy, padded)
    torch.testing.assert_close(got["logits"], expected["logits"], rtol=1e-5, atol=1e-5)
    for name in expected.keys() - {"logits"}:
        torch.testing.assert_close(got[name], longer(expected[name], 0), rtol=1e-5, atol=1e-5)


def make_bloom():
    """Its forward takes no position ids, and here it minds them."""

    def refuse(_module, _args, kwargs):
        assert "position_ids" not in kwargs

    torch.manual_seed(0)
    config = BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.2)
    model = BloomForCausalLM(config).eval()
    model.base_model.register_forward_pre_hook(refuse, with_kwargs=True)
    return model


@pytest.mark.parametrize("make", [make_llama, make_gpt2, make_bloom, lambda: make_family("opt", torch.float32)])
def test_padding_on_the_left_is_padding_on_the_right(make):
    """The same rows, moved; learned positions count no padding either."""
    policy = Policy(make())
    batch = random_batch(rows=4, tokens=20)
    gaps = (1 - batch.attention_mask).sum(-1).tolist()
    assert len(set(gaps)) == 4

    def moved(tensor, sign=1):
        return torch.stack([row.roll(sign * gap, 0) for row, gap in zip(tensor, gaps, strict=True)])

    left = Batch(moved(batch.input_ids), moved(batch.attention_mask), moved(batch.labels))
    assert left.attention_mask[:, -1].all()
    expected, got = everything(policy, batch), everything(policy, left)
    torch.testing.assert_close(got["logits"], expected["logits"], rtol=1e-5, atol=1e-5)
    for name in expected.keys() - {"logits"}:
        torch.testing.assert_close(moved(got[name], -1), expected[name], rtol=1e-5, atol=1e-5)
    hidden = moved(policy(left, "hidden", 0), -1)
    real = batch.attention_mask.bool()
    torch.testing.assert_close(hidden[real], policy(batch, "hidden", 0)[real], rtol=1e-5, atol=1e-5)


def test_statistics_make_few_logits_at_a_time():
    """However many labels there are, so that memory does not grow with them."""
    model = make_family("llama")
    policy = Policy(model)
    batch = random_batch(rows=10, tokens=60)
    heads = noted_heads(model)
    policy._head_is_known = True
    stats = policy(batch, "stats")
    assert sum(heads) == int(batch.mask.sum()) > 300
    assert max(heads) <= 128
    expected = reference(model, batch)
    torch.testing.assert_close(stats.logprobs, expected["stats"], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(stats.deviation, expected["deviation"], rtol=1e-9, atol=1e-9)


def test_labels_are_targets_only():
    """Which labels there are changes no logit and no log-probability of those that stay."""
    policy = Policy(make_llama())
    batch = random_batch()
    expected = policy(batch, "logprobs")
    labels = batch.labels.clone()
    labels[:, 5] = -100  # a gap in the answer
    got = policy(Batch(batch.input_ids, batch.attention_mask, labels), "logprobs")
    assert not got[:, 5].any()
    torch.testing.assert_close(got, torch.where(labels == -100, 0, expected), rtol=1e-5, atol=1e-5)


def test_row_order_changes_nothing():
    policy = Policy(make_llama())
    batch = random_batch()
    order = torch.tensor([2, 0, 1])
    turned = Batch(batch.input_ids[order], batch.attention_mask[order], batch.labels[order])
    torch.testing.assert_close(policy(turned, "logprobs"), policy(batch, "logprobs")[order], rtol=1e-5, atol=1e-5)


def test_a_row_without_labels_gives_zeros():
    policy = Policy(make_llama())
    batch = random_batch()
    batch.labels[1] = -100
    logprobs, stats = policy(batch, "logprobs"), policy(batch, "stats")
    assert not logprobs[1].any()
    assert not any(value[1].any() for value in stats)
    assert (logprobs[[0, 2]].sum(-1) < 0).all()
    assert len(policy(batch, "logits")) == int(batch.mask.sum())


def test_a_batch_without_labels_gives_zeros_and_gradients_of_zero():
    """What a process without rows computes in the last step: nothing, but with a graph, for DDP waits for it."""
    model = make_llama()
    policy = Policy(model)
    batch = random_batch()
    batch.labels.fill_(-100)
    for want in WANTED:
        got = policy(batch, want)
        assert not any(value.any() for value in (got if want == "stats" else [got]))
    assert policy(batch, "logits").shape == (0, model.config.vocab_size)
    policy(batch, "logprobs").sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


def test_a_label_at_the_first_token_is_ignored():
    policy = Policy(make_llama())
    batch = random_batch()
    expected = everything(policy, batch)
    labels = batch.labels.clone()
    labels[:, 0] = batch.input_ids[:, 0]
    got = everything(policy, Batch(batch.input_ids, batch.attention_mask, labels))
    for name, value in expected.items():
        assert torch.equal(got[name], value), name
    assert (labels[:, 0] != -100).all()  # and the caller's labels stay as they were


def gradients(model, logprobs, seed=0):
    """Of all parameters, of a sum in which every log-probability has another weight."""
    weights = torch.randn(logprobs.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    model.zero_grad()
    (weights * logprobs).sum().backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def noted_heads(model):
    """How many tokens the head maps each time."""
    seen = []
    model.get_output_embeddings().register_forward_hook(lambda _module, inputs, _output: seen.append(len(inputs[0])))
    return seen


@pytest.mark.parametrize("chunk", [10_000, 7])
@pytest.mark.parametrize("family", ["llama-tied", "gpt2", "opt-projected", "gemma2", "gemma3", *SCALED])
def test_gradients_equal_those_of_the_full_forward(family, chunk, monkeypatch):
    """With a tied head both uses of the embeddings add up. Logits of few labels are kept, those of many made again."""
    monkeypatch.setattr(policy_module, "KEPT_LOGITS", chunk * VOCABULARY)
    model = make_family(family)
    batch = random_batch(rows=4, vocabulary=VOCABULARY)
    expected = gradients(model, reference(model, batch)["logprobs"])
    policy, heads = Policy(model), noted_heads(model)
    policy._head_is_known = True
    got = gradients(model, policy(batch, "logprobs"))
    for name, value in got.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-9, atol=1e-9, msg=name)
    labels = int(batch.mask.sum())
    assert sum(heads) == (labels if chunk > labels else 2 * labels)
    assert max(heads) == min(chunk, labels)


@pytest.mark.parametrize("chunk", [10_000, 7])
def test_gradients_under_autocast_are_near_those_of_full_precision(chunk, monkeypatch):
    """Those of bfloat16 logits; the head's own weight is rounded there too."""
    monkeypatch.setattr(policy_module, "KEPT_LOGITS", chunk * VOCABULARY)
    model = make_family("llama-tied", torch.float32)
    batch = random_batch(rows=4, vocabulary=VOCABULARY)
    expected = gradients(model, reference(model, batch)["logprobs"])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logprobs = Policy(model)(batch, "logprobs")
    assert logprobs.dtype == torch.float32
    for name, value in gradients(model, logprobs).items():
        assert value.dtype == torch.float32
        assert (value - expected[name]).norm() < 0.05 * expected[name].norm(), name


def test_without_a_gradient_few_logits_exist_at_a_time():
    model = make_family("llama")
    batch = random_batch(rows=10, tokens=60)
    policy, heads = Policy(model), noted_heads(model)
    policy._head_is_known = True
    with torch.no_grad():
        found = policy(batch, "logprobs")
    assert sum(heads) == int(batch.mask.sum()) > 300
    assert max(heads) <= 128
    torch.testing.assert_close(found, reference(model, batch)["logprobs"], rtol=1e-9, atol=1e-9)


def test_one_backward_pass_a_forward():
    """The logits have become their own gradient; a second pass would be wrong and is refused."""
    policy = Policy(make_llama())
    total = policy(random_batch(), "logprobs").sum()
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="run the policy again"):
        total.backward()


def test_logprobs_of_a_frozen_head_reach_what_is_below_it():
    model = make_family("llama")
    batch = random_batch(vocabulary=VOCABULARY)
    gradients(model, reference(model, batch)["logprobs"])
    expected = model.model.layers[0].mlp.up_proj.weight.grad.clone()
    model.requires_grad_(False)
    model.model.layers[0].mlp.up_proj.requires_grad_(True)
    model.zero_grad()
    weights = torch.randn(batch.labels.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (weights * Policy(model)(batch, "logprobs")).sum().backward()
    torch.testing.assert_close(model.model.layers[0].mlp.up_proj.weight.grad, expected, rtol=1e-9, atol=1e-9)


def test_low_precision_is_reduced_in_float32():
    """The logits stay bfloat16; the log-probabilities are those of these logits, computed in float32."""
    model = make_llama().bfloat16()
    batch = random_batch()
    policy = Policy(model)
    logits = policy(batch, "logits")
    assert logits.dtype == torch.bfloat16
    logprobs = policy(batch, "logprobs")
    assert logprobs.dtype == torch.float32
    expected = logits.float().log_softmax(-1).gather(-1, batch.labels[batch.mask].unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(logprobs[batch.mask], expected, rtol=1e-6, atol=1e-6)


def test_dropout_is_on_in_training_only():
    """A model arrives in eval mode; the policy turns its dropout on, and off where it is told to."""
    model = make_gpt2(dropout=0.5)
    assert not model.training
    policy = Policy(model)
    batch = random_batch()
    assert not torch.allclose(policy(batch, "logprobs"), policy(batch, "logprobs"))
    assert not torch.allclose(policy(batch, "hidden", 0), policy(batch, "hidden", 0))
    policy.eval()
    assert torch.equal(policy(batch, "logprobs"), policy(batch, "logprobs"))
    model.eval()
    torch.testing.assert_close(policy(batch, "logprobs"), reference(model, batch)["logprobs"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_generate_is_without_dropout_and_restores_the_mode(training):
    policy = Policy(make_gpt2(dropout=0.5)).train(training)
    ids = random_batch().input_ids
    first = policy.generate(ids, torch.ones_like(ids), 6, [1])
    assert torch.equal(first, policy.generate(ids, torch.ones_like(ids), 6, [1]))
    assert first.shape[0] == 3
    assert first.shape[1] <= 6
    assert all(module.training is training for module in policy.modules())
    assert not first.requires_grad


def test_generate_restores_the_mode_when_it_fails(monkeypatch):
    policy = Policy(make_gpt2(dropout=0.5))

    def fail(**_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(policy.model, "generate", fail)
    ids = random_batch().input_ids
    with pytest.raises(RuntimeError, match="out of memory"):
        policy.generate(ids, torch.ones_like(ids), 6, [1])
    assert all(module.training for module in policy.modules())


def test_names_in_the_state_dict():
    """What a checkpoint's keys are made of, and what an export takes off again."""
    model = make_llama()
    assert list(Policy(model).state_dict()) == [f"model.{name}" for name in model.state_dict()]


def test_an_architecture_that_does_more_to_its_logits_is_refused():
    model = make_llama()
    plain = model.forward

    def scaled(*args, **kwargs):
        output = plain(*args, **kwargs)
        output.logits = output.logits * 3
        return output

    model.forward = scaled
    with pytest.raises(UnlearunError, match="more to its logits"):
        Policy(model)(random_batch(), "logprobs")
