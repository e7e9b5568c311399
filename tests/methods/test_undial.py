from __future__ import annotations

import pytest
import torch
from conftest import (
    FORGET,
    RETAIN,
    answer_tokens,
    elsewhere_changed,
    make_gpt2,
    make_llama,
    make_tokenizer,
    random_batch,
)
from lightning.pytorch import Trainer

from unlearun.data import UnlearningDataModule
from unlearun.errors import UnlearunError
from unlearun.methods import UNDIAL
from unlearun.methods.undial import lowered
from unlearun.models import CachedStates


def test_the_teacher_by_hand():
    """β comes off the label's score alone, and the pieces keep their order."""
    pieces = [torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[0.0, 0.0, 0.0], [4.0, 5.0, 6.0]])]
    teacher = torch.cat(list(lowered(iter(pieces), torch.tensor([2, 0, 1]), beta=10.0)))
    assert teacher.tolist() == [[1.0, 2.0, -7.0], [-10.0, 0.0, 0.0], [4.0, -5.0, 6.0]]
    assert pieces[0].tolist() == [[1.0, 2.0, 3.0]]  # the reference keeps its scores


@pytest.mark.parametrize("make", [make_llama, make_gpt2])
def test_against_a_plain_loop(make):
    start, moved, batch, beta = make(seed=0), make(seed=4), random_batch(seed=1), 3.0
    losses, divergences = [], []
    for before, now in zip(answer_tokens(start, batch), answer_tokens(moved, batch), strict=True):
        for (theirs, label), (ours, _) in zip(before, now, strict=True):
            scores = theirs.clone()
            scores[label] -= beta
            teacher = scores.softmax(-1)
            losses.append(-(teacher * ours.log_softmax(-1)).sum().item())
            divergences.append(losses[-1] + (teacher * teacher.log()).sum().item())
    method = UNDIAL(moved, reference=start, beta=beta, alpha=0.0)
    loss = method.training_step({"forget": batch}, 0)
    assert loss.item() == pytest.approx(sum(losses) / len(losses), rel=1e-4)
    assert method._step_parts["divergence"].item() == pytest.approx(sum(divergences) / len(divergences), rel=1e-4)


def test_the_gradient_is_that_of_the_plain_cross_entropy():
    start, batch, beta = make_llama(seed=0).double(), random_batch(seed=1), 3.0
    ours, plain = make_llama(seed=4).double(), make_llama(seed=4).double()
    UNDIAL(ours, reference=start, beta=beta, alpha=0.0).training_step({"forget": batch}, 0).backward()
    places = (batch.labels != -100).nonzero()
    labels = batch.labels[batch.labels != -100]
    logits = plain(batch.input_ids, attention_mask=batch.attention_mask).logits[places[:, 0], places[:, 1] - 1]
    with torch.no_grad():
        theirs = start(batch.input_ids, attention_mask=batch.attention_mask).logits[places[:, 0], places[:, 1] - 1]
    teacher = (theirs - beta * torch.nn.functional.one_hot(labels, theirs.shape[-1])).softmax(-1)
    torch.nn.functional.cross_entropy(logits, teacher).backward()
    for one, other in zip(ours.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, rtol=1e-9, atol=1e-12)


def test_beta_of_0_leaves_nothing_to_learn_at_the_start():
    method = UNDIAL(make_llama(), beta=0.0, alpha=0.0)
    loss = method.training_step({"forget": random_batch()}, 0)
    loss.backward()
    assert method._step_parts["divergence"].item() == pytest.approx(0.0, abs=1e-6)
    assert max(parameter.grad.abs().max().item() for parameter in method.parameters()) < 1e-6


def test_only_labelled_tokens_count():
    batch = random_batch()
    method = UNDIAL(make_llama(seed=4), reference=make_llama(seed=0), alpha=0.0)
    plain, *others = (method.training_step({"forget": b}, 0).item() for b in (batch, *elsewhere_changed(batch)))
    assert others == pytest.approx([plain, plain], rel=1e-6)


@pytest.mark.parametrize("kind", ["NLL", "KL"])
def test_cached_states_of_forget_rows_give_the_same_steps_as_the_weights_put_back(kind):
    def fit(way):
        found = []

        class Seen(UNDIAL):
            def on_before_optimizer_step(self, optimizer):
                found.append({name: part.item() for name, part in self._step_parts.items()})
                super().on_before_optimizer_step(optimizer)

        method = Seen(make_llama().double(), tokenizer=make_tokenizer(), reference_way=way, retain_loss_type=kind)
        method.optimizer = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 3e-3}}
        quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
        trainer = Trainer(max_epochs=4, limit_val_batches=0, precision="64-true", **quiet)
        trainer.fit(method, datamodule=UnlearningDataModule(FORGET, RETAIN, batch_size=2))
        return found, method.reference

    (cached, cache), (live, _) = fit("cache"), fit("weights")
    assert isinstance(cache, CachedStates)
    assert len(cache.states) == (len(FORGET) + len(RETAIN) if kind == "KL" else len(FORGET))
    for one, other in zip(cached, live, strict=True):
        assert one == pytest.approx(other, rel=1e-8, abs=1e-9)
    assert abs(cached[-1]["divergence"] - cached[0]["divergence"]) > 1e-3  # they have moved


@pytest.mark.parametrize("wrong", [-1.0, float("nan")])
def test_numbers_out_of_range(wrong):
    with pytest.raises(UnlearunError, match="beta"):
        UNDIAL(make_llama(), beta=wrong)
