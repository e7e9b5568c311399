from __future__ import annotations

import pytest
import torch
from conftest import FORGET, RETAIN, answer_tokens, elsewhere_changed, make_llama, make_tokenizer, random_batch
from lightning.pytorch import Trainer

from unlearun.data import UnlearningDataModule
from unlearun.errors import UnlearunError
from unlearun.methods import PDU
from unlearun.methods.pdu import flattening_loss

QUIET = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)


def test_value_by_hand():
    """Scores 1, 2, 6: (6 - 3)² = 9; scores 0, 0, 0: 0."""
    assert flattening_loss(torch.tensor([[1.0, 2.0, 6.0], [0.0, 0.0, 0.0]])).item() == 9.0


def test_half_precision_is_compared_in_full():
    """The mean of 256 and 255 zeros is 1: in bfloat16 it would be 1 as well, but the difference 256."""
    logits = torch.zeros(1, 256, dtype=torch.bfloat16)
    logits[0, 0] = 256
    assert flattening_loss(logits).item() == 255**2


def test_against_a_plain_loop():
    model, forget, retain = make_llama(seed=4), random_batch(seed=1), random_batch(seed=2)
    margins = [(scores.max() - scores.mean()).item() ** 2 for row in answer_tokens(model, forget) for scores, _ in row]
    nlls = [-scores.log_softmax(-1)[label].item() for row in answer_tokens(model, retain) for scores, label in row]
    method = PDU(model, gamma=0.3, dual_start=2.0)
    loss = method.training_step({"forget": forget, "retain": retain}, 0)
    assert loss.item() == pytest.approx(0.3 * sum(margins) / len(margins) + 2.0 * sum(nlls) / len(nlls), rel=1e-4)


def test_only_labelled_tokens_count():
    batch, retain = random_batch(), random_batch(seed=2)
    method = PDU(make_llama(seed=4))
    losses = [
        method.training_step({"forget": b, "retain": retain}, 0).item() for b in (batch, *elsewhere_changed(batch))
    ]
    assert losses[1:] == pytest.approx([losses[0]] * 2, rel=1e-6)


class Seen(PDU):
    """Keeps λ and the retain loss of every step."""

    steps: tuple = ()

    def on_before_optimizer_step(self, optimizer):
        self.steps = (*self.steps, (float(self.dual), self._step_parts["retain_loss"].item()))
        super().on_before_optimizer_step(optimizer)


def fit(batch_size=2, accumulate=1, epochs=3, **arguments):
    method = Seen(make_llama(), tokenizer=make_tokenizer(), **arguments)
    method.optimizer = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.05}}
    trainer = Trainer(max_epochs=epochs, limit_val_batches=0, accumulate_grad_batches=accumulate, **QUIET)
    trainer.fit(method, datamodule=UnlearningDataModule(FORGET, RETAIN, batch_size=batch_size))
    return method, trainer


def test_the_dual_follows_the_retain_loss_once_a_step_and_stays_at_0():
    """λ + η (L_r - ε), the loss of untrained models being about 4: with ε 1 it rises, with ε 100 it falls to 0."""
    for epsilon in (1.0, 100.0):
        method, trainer = fit(epsilon=epsilon, dual_step=0.01, dual_start=0.7)
        assert len(method.steps) == 6
        for (dual, loss), (following, _) in zip(method.steps, method.steps[1:], strict=False):
            assert following == pytest.approx(max(0.0, dual + 0.01 * (loss - epsilon)), abs=1e-5)
        assert (method.steps[-1][0] > 0.7) if epsilon == 1.0 else (method.steps[-1][0] == 0.0)
        assert trainer.callback_metrics["train/dual"].item() == pytest.approx(method.steps[-1][0])
        metrics = trainer.callback_metrics
        total = metrics["train/forget_loss"] + metrics["train/dual"] * (metrics["train/retain_loss"] - epsilon)
        assert metrics["train/loss"].item() == pytest.approx(total.item(), rel=1e-5)


def test_accumulation_changes_no_dual():
    whole, parts = (fit(*sizes, epsilon=1.0)[0].steps for sizes in ((4, 1), (1, 4)))
    for one, other in zip(whole, parts, strict=True):
        assert other == pytest.approx(one, rel=1e-4)


def test_the_dual_is_in_the_checkpoint():
    method, _ = fit(epsilon=1.0, dual_start=1)
    checkpoint = {"state_dict": method.state_dict()}
    method.on_save_checkpoint(checkpoint)
    fresh = PDU(make_llama().bfloat16())
    fresh.on_load_checkpoint(checkpoint)
    assert fresh.dual == method.dual != 1


def test_a_second_fit_starts_from_the_same_dual():
    method, _ = fit(epsilon=1.0, dual_step=0.01, dual_start=0.7)
    first, method.steps = method.steps, []
    again = Trainer(max_epochs=1, limit_val_batches=0, **QUIET)
    again.fit(method, datamodule=UnlearningDataModule(FORGET, RETAIN, batch_size=2))
    assert method.steps[0][0] == first[0][0] == pytest.approx(0.7)


@pytest.mark.parametrize("wrong", ["epsilon", "dual_step", "dual_start"])
def test_numbers_out_of_range(wrong):
    with pytest.raises(UnlearunError, match=wrong):
        PDU(make_llama(), **{wrong: -1.0})
