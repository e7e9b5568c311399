from __future__ import annotations

import pytest
import torch
from conftest import make_gpt2, make_llama, random_batch
from torch.nn.functional import kl_div

from unlearun.errors import UnlearunError
from unlearun.methods import GradDiff


def nll(model, batch):
    return model(batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels).loss


def reference_kl(reference, model, batch):
    """Mean over labelled tokens of KL(ref ‖ π), with torch's own kl_div over full logits."""
    total, count = 0.0, 0
    old = reference(batch.input_ids, attention_mask=batch.attention_mask).logits.log_softmax(-1)
    new = model(batch.input_ids, attention_mask=batch.attention_mask).logits.log_softmax(-1)
    for row in range(len(batch)):
        for position in range(1, batch.labels.shape[1]):
            if batch.labels[row, position] != -100:
                pair = new[row, position - 1], old[row, position - 1]
                total += kl_div(*pair, reduction="sum", log_target=True).item()
                count += 1
    return total / count


def test_total_is_gamma_forget_plus_alpha_retain():
    model, forget, retain = make_llama(), random_batch(seed=1), random_batch(seed=2)
    expected = -0.5 * nll(model, forget) + 3.0 * nll(model, retain)
    loss = GradDiff(model, gamma=0.5, alpha=3.0).training_step({"forget": forget, "retain": retain}, 0)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize("make", [make_llama, make_gpt2])
def test_kl_against_torch(make):
    start, moved = make(seed=0), make(seed=5)
    forget, retain = random_batch(seed=1), random_batch(seed=2)
    method = GradDiff(moved, reference=start, gamma=0.0, retain_loss_type="KL")
    loss = method.training_step({"forget": forget, "retain": retain}, 0)
    assert loss.item() == pytest.approx(reference_kl(start, moved.eval(), retain), rel=1e-4)


def test_kl_is_zero_at_the_start_and_its_reference_stays():
    model, batch = make_llama(), {"forget": random_batch(seed=1), "retain": random_batch(seed=2)}
    method = GradDiff(model, gamma=0.0, retain_loss_type="KL")
    assert method.training_step(batch, 0).item() == pytest.approx(0.0, abs=1e-6)
    with torch.no_grad():
        model.lm_head.weight.add_(torch.randn_like(model.lm_head.weight))
    assert method.training_step(batch, 0).item() > 0.01


@pytest.mark.parametrize("kind", ["NLL", "KL"])
def test_padding_changes_nothing_and_the_answer_does(kind):
    retain, padded, answered = (random_batch(seed=2) for _ in range(3))
    padded.input_ids[retain.attention_mask == 0] = 3
    answered.input_ids[0, 5] = (retain.input_ids[0, 5] + 1) % 60
    method = GradDiff(make_llama(), reference=make_llama(seed=5), gamma=0.0, retain_loss_type=kind)
    plain, same, other = (
        method.training_step({"forget": batch, "retain": batch}, 0).item() for batch in (retain, padded, answered)
    )
    assert same == pytest.approx(plain, rel=1e-6)
    assert abs(other - plain) > 1e-5


def test_unknown_retain_loss():
    with pytest.raises(UnlearunError, match="one of NLL, KL"):
        GradDiff(make_llama(), retain_loss_type="MSE")


def test_no_retain_forward_without_weight():
    model = make_llama()
    method = GradDiff(model, alpha=0.0, retain_loss_type="KL")
    assert not method.needs_reference
    forget, retain = random_batch(), random_batch(seed=2)
    both, alone = (
        method.training_step(batch, 0) for batch in ({"forget": forget, "retain": retain}, {"forget": forget})
    )
    assert both == alone
