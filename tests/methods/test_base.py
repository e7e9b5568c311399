from __future__ import annotations

import copy

import pytest
import torch
from conftest import FORGET, RETAIN, make_gpt2, make_llama, make_tokenizer, random_batch
from lightning.pytorch import Trainer

from unlearun.data import UnlearningDataModule
from unlearun.errors import UnlearunError
from unlearun.methods import DPO, RMU, GradAscent, GradDiff, SimNPO

QUIET = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "limit_val_batches": 0,
}


class Recorded(GradDiff):
    """GradDiff that keeps what it logs at each optimizer step."""

    def on_before_optimizer_step(self, optimizer):
        self.steps = [*getattr(self, "steps", []), {k: v.item() for k, v in self._step_parts.items()}]
        super().on_before_optimizer_step(optimizer)


def fit(batch_size: int, accumulate: int, epochs: int = 3, **arguments):
    model = make_llama().double()
    method = Recorded(model, tokenizer=make_tokenizer(), **arguments)
    method.optimizer = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}}
    data = UnlearningDataModule(FORGET[:3], RETAIN, batch_size=batch_size)
    Trainer(max_epochs=epochs, accumulate_grad_batches=accumulate, **QUIET).fit(method, datamodule=data)
    return method


@pytest.mark.parametrize("kind", ["NLL", "KL"])
def test_accumulation_changes_nothing_the_last_shorter_window_included(kind):
    """Three forget rows: one step of 2 and one of 1, as batches of 2, or of 1 with two accumulated."""
    whole, parts = fit(2, 1, retain_loss_type=kind), fit(1, 2, retain_loss_type=kind)
    assert len(whole.steps) == len(parts.steps) == 6
    for one, other in zip(whole.steps, parts.steps, strict=True):
        assert other == pytest.approx(one, rel=1e-9)
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-10)


def test_a_hand_made_batch_works_without_a_trainer():
    forget, retain = random_batch(seed=1), random_batch(seed=2)
    loss = SimNPO(model=make_llama(), beta=2.5).training_step({"forget": forget, "retain": retain}, 0)
    loss.backward()
    assert loss.ndim == 0
    assert loss.item() > 0


def test_the_reference_is_the_weights_at_construction():
    model = make_llama()
    method = GradDiff(model, retain_loss_type="KL")
    before = method.reference.logits(random_batch())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(method.reference.logits(random_batch()), before)


@pytest.mark.parametrize("method", [GradAscent, GradDiff, DPO, SimNPO])
def test_all_parameters_get_a_gradient(method):
    batch = random_batch()
    batch.alternate = random_batch(seed=3)
    unlearner = method(make_gpt2())
    unlearner.training_step({"forget": batch, "retain": random_batch(seed=2)}, 0).backward()
    assert all(p.grad is not None for p in unlearner.parameters() if p.requires_grad)


def test_dropout_is_on_in_training_and_off_in_the_reference():
    method = GradDiff(make_gpt2(dropout=0.5), retain_loss_type="KL", gamma=0.0)
    batch = {"forget": random_batch(), "retain": random_batch(seed=2)}
    assert method.training_step(batch, 0).item() != method.training_step(batch, 0).item()
    first, second = (method.reference.logits(batch["retain"]) for _ in range(2))
    assert torch.equal(first, second)


def test_gradient_checkpointing_changes_no_gradient():
    batch = {"forget": random_batch(), "retain": random_batch(seed=2)}
    gradients = []
    for checkpointing in (False, True):
        method = GradDiff(make_llama(), gradient_checkpointing=checkpointing)
        method.training_step(batch, 0).backward()
        gradients.append([p.grad for p in method.parameters()])
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(*gradients, strict=True))


def test_only_trained_parameters_reach_the_optimizer():
    method = RMU(make_llama(layers=4), target_layer=0)
    optimizer = method.configure_optimizers()
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 1
    assert optimizer.defaults["lr"] == 1e-5


def test_a_checkpoint_holds_no_reference_and_only_plain_values(tmp_path):
    method = GradDiff(make_llama(), tokenizer=make_tokenizer(), retain_loss_type="KL")
    data = UnlearningDataModule(FORGET, RETAIN, batch_size=2)
    trainer = Trainer(max_steps=1, **QUIET)
    trainer.fit(method, datamodule=data)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    stored = torch.load(tmp_path / "x.ckpt", weights_only=True)
    assert all(name.startswith("policy.model.") for name in stored["state_dict"])
    assert len(stored["state_dict"]) == len(make_llama().state_dict())


def test_retain_is_needed_where_there_is_a_retain_term():
    data = UnlearningDataModule(FORGET)
    with pytest.raises(UnlearunError, match=r"--data\.retain"):
        Trainer(max_steps=1, **QUIET).fit(SimNPO(make_llama(), tokenizer=make_tokenizer()), datamodule=data)


def test_step_zero_is_evaluated_with_all_rows():
    method = SimNPO(make_llama(), tokenizer=make_tokenizer())
    data = UnlearningDataModule(FORGET, RETAIN, batch_size=2)
    Trainer(**{**QUIET, "limit_val_batches": 1.0}).validate(method, datamodule=data, verbose=False)
    assert len(method.evaluation.examples["forget"]) == len(FORGET)
    assert len(method.evaluation.examples["retain"]) == len(RETAIN)
    assert method.evaluation.step == 0


def test_a_copy_given_as_reference_is_used():
    start, moved = make_llama(seed=0), make_llama(seed=4)
    batch = random_batch()
    given = GradDiff(moved, reference=start, retain_loss_type="KL").reference.logits(batch)
    own = GradDiff(copy.deepcopy(start), retain_loss_type="KL").reference.logits(batch)
    assert torch.allclose(given, own)
