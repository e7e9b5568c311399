from __future__ import annotations

import math

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
from unlearun.methods import CEU
from unlearun.methods.ceu import without_labels
from unlearun.ops import token_kl_and_entropy


def loss_of(logits, labels):
    divergence, entropy = token_kl_and_entropy(without_labels(logits, labels), logits, consume=True)
    return divergence + entropy


def test_value_by_hand():
    """Probabilities 1/2 (the label), 1/4, 1/4: the teacher has 0, 1/2, 1/2, so the cross-entropy is log 4."""
    logits = torch.tensor([[0.5, 0.25, 0.25]]).log()
    assert loss_of(logits, torch.tensor([0])).item() == pytest.approx(math.log(4), abs=1e-6)


def test_the_gradient_of_a_score_is_what_the_teacher_lacks():
    """softmax(z) minus the teacher: 1/2 at the label, 1/4 - 1/2 at the others."""
    logits = torch.tensor([[0.5, 0.25, 0.25]], dtype=torch.float64).log().requires_grad_()
    loss_of(logits * 1, torch.tensor([0])).sum().backward()
    assert logits.grad[0].tolist() == pytest.approx([0.5, -0.25, -0.25])


@pytest.mark.parametrize("make", [make_llama, make_gpt2])
def test_against_a_plain_loop(make):
    """The first token of each answer is left out."""
    model, batch = make(seed=4), random_batch(seed=1)
    losses = []
    for row in answer_tokens(model, batch):
        for scores, label in row[1:]:
            others = scores.clone()
            others[label] = -math.inf
            teacher, log_model = others.softmax(-1), scores.log_softmax(-1)
            losses.append(-sum(q * lp for q, lp in zip(teacher.tolist(), log_model.tolist(), strict=True)))
    loss = CEU(model, alpha=0.0).training_step({"forget": batch}, 0)
    assert loss.item() == pytest.approx(sum(losses) / len(losses), rel=1e-4)


def test_an_answer_of_one_token_keeps_it():
    batch = random_batch(rows=2)
    batch.labels[1] = -100
    batch.labels[1, 5] = 7
    first, second = answer_tokens(make_llama(), batch)
    assert len(second) == 1
    losses = []
    for scores, label in [*first[1:], *second]:
        others = scores.clone()
        others[label] = -math.inf
        losses.append(torch.nn.functional.cross_entropy(scores, others.softmax(-1)).item())
    loss = CEU(make_llama(), alpha=0.0).training_step({"forget": batch}, 0)
    assert loss.item() == pytest.approx(sum(losses) / len(losses), rel=1e-4)


def test_only_labelled_tokens_count():
    batch = random_batch()
    method = CEU(make_llama(seed=4), alpha=0.0)
    plain, *others = (method.training_step({"forget": b}, 0).item() for b in (batch, *elsewhere_changed(batch)))
    assert others == pytest.approx([plain, plain], rel=1e-6)


def test_accumulation_divides_by_the_tokens_of_the_step_that_count():
    """Three rows, the last of which is cut to an answer of one token: as a batch of 3, or of 1 three times."""

    def fit(batch_size, accumulate):
        found = []

        class Seen(CEU):
            def on_before_optimizer_step(self, optimizer):
                found.append(self._step_parts["forget_loss"].item())
                super().on_before_optimizer_step(optimizer)

        method = Seen(make_llama().double(), tokenizer=make_tokenizer())
        method.optimizer = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}}
        quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
        # A question and its template take 39 characters: of the longest answer one is left.
        data = UnlearningDataModule(rows, RETAIN[:1], batch_size=batch_size, max_length=40)
        trainer = Trainer(max_epochs=2, limit_val_batches=0, accumulate_grad_batches=accumulate, **quiet)
        trainer.fit(method, datamodule=data)
        return found

    rows = [{"text": "abcdefgh"}, {"text": "k"}, FORGET[0]]
    whole = fit(3, 1)
    assert len(whole) == 2
    assert fit(1, 3) == pytest.approx(whole, rel=1e-9)
