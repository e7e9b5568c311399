from __future__ import annotations

import copy
import math

import pytest
import torch
from conftest import FORGET, RETAIN, make_llama, make_tokenizer, random_batch, sequence_logprob
from lightning.pytorch import Trainer

from unlearun.data import UnlearningDataModule
from unlearun.errors import UnlearunError
from unlearun.methods import NPO, GradAscent
from unlearun.methods.npo import npo_loss, npo_weight

TWO_ROWS = torch.tensor([2, 3])


def test_value_by_hand():
    """Gain -2 with β = 0.5: -(2/0.5) log σ(0.5·2) = 4 log(1 + e^-1) = 1.253047."""
    assert npo_loss(torch.tensor([-2.0]), torch.tensor([3]), beta=0.5).item() == pytest.approx(1.253047, abs=1e-5)


def test_weight_by_hand():
    """Gains 0 and -2 with β = 0.5: 2 σ(0) + 2 σ(-1) = 1 + 2/(1 + e) = 1.537883."""
    assert npo_weight(torch.tensor([0.0, -2.0]), TWO_ROWS, 0.5).item() == pytest.approx(1.537883, abs=1e-5)


def test_against_a_plain_loop():
    start, moved = make_llama(seed=0), make_llama(seed=4)
    batch, beta = random_batch(seed=1), 0.3
    gains = [sequence_logprob(moved, batch, row) - sequence_logprob(start, batch, row) for row in range(len(batch))]
    losses = [2 / beta * math.log1p(math.exp(beta * gain)) for gain in gains]
    method = NPO(moved, reference=start, beta=beta, alpha=0.0)
    loss = method.training_step({"forget": batch, "retain": batch}, 0)
    assert loss.item() == pytest.approx(sum(losses) / len(losses), rel=1e-4)


def test_the_length_normalised_form_divides_by_the_answer_s_length():
    start, moved, batch, beta = make_llama(seed=0), make_llama(seed=4), random_batch(seed=1), 2.0
    counts = (batch.labels != -100).sum(-1).tolist()
    assert len(set(counts)) > 1
    losses = []
    for row, count in enumerate(counts):
        gain = (sequence_logprob(moved, batch, row) - sequence_logprob(start, batch, row)) / count
        losses.append(2 / beta * math.log1p(math.exp(beta * gain)))
    method = NPO(moved, reference=start, beta=beta, length_normalized=True, alpha=0.0)
    assert method.training_step({"forget": batch}, 0).item() == pytest.approx(sum(losses) / len(losses), rel=1e-4)


def test_starts_at_two_over_beta_log_two():
    method, batch = NPO(make_llama(), beta=0.1, alpha=0.0), random_batch()
    assert method.training_step({"forget": batch}, 0).item() == pytest.approx(20 * math.log(2))


def gradients(method, batch):
    method.training_step({"forget": batch}, 0).backward()
    return [parameter.grad for parameter in method.parameters()]


def test_starts_with_the_gradient_of_ascent_on_whole_answers():
    """At the start all weights are 1: the gradient is that of the mean of S over rows, whatever β."""
    batch = random_batch()
    by_row = copy.deepcopy(batch)
    by_row.step_tokens = len(batch)  # GradAscent divides its sum by this: here by rows, for a mean of S
    ascent = gradients(GradAscent(make_llama().double()), by_row)
    for beta in (0.1, 3.0):
        found = gradients(NPO(make_llama().double(), beta=beta, alpha=0.0), batch)
        assert all(torch.allclose(*pair, rtol=1e-9, atol=1e-12) for pair in zip(found, ascent, strict=True))


def test_a_small_beta_is_ascent_up_to_a_constant():
    """(2/β) log(1 + e^(βg)) = (2/β) log 2 + g + βg²/4 + ..., so without its constant the loss goes to g."""
    gains = torch.tensor([-7.0, 4.0], dtype=torch.float64, requires_grad=True)
    beta = 1e-5
    loss = npo_loss(gains, TWO_ROWS, beta)
    assert loss.item() - 2 * 2 / beta * math.log(2) == pytest.approx(-3.0, abs=1e-3)
    loss.backward()
    assert gains.grad == pytest.approx([1.0, 1.0], abs=1e-4)


def test_the_weight_is_what_the_gradient_has():
    """∂L/∂S = 2 σ(βg), by differentiation: it fades below the start, and grows to 2 above it."""
    gains = torch.tensor([-40.0, -3.0, 0.0, 5.0], dtype=torch.float64, requires_grad=True)
    counts = torch.ones(4)
    npo_loss(gains, counts, 0.4).backward()
    weights = [npo_weight(gain[None], torch.ones(1), 0.4).item() for gain in gains.detach()]
    assert gains.grad.tolist() == pytest.approx(weights)
    assert weights[0] < 1e-6
    assert weights[2] == 1.0
    assert 1.0 < weights[3] < 2.0


def test_a_row_without_labels_counts_for_nothing():
    gains, counts = torch.tensor([-2.0, 0.0]), torch.tensor([3, 0])
    assert npo_loss(gains, counts, 0.5).item() == pytest.approx(1.253047, abs=1e-5)
    assert npo_weight(gains, counts, 0.5).item() == pytest.approx(0.537883, abs=1e-5)


def test_only_labelled_tokens_count():
    """Other ids in the padding change nothing, and neither do tokens after the last label."""
    batch = random_batch()
    changed = copy.deepcopy(batch)
    changed.input_ids[batch.attention_mask == 0] = 3
    longer = batch.map(lambda tensor: tensor if tensor.ndim == 1 else torch.nn.functional.pad(tensor, (0, 2)))
    longer.labels[:, -2:] = -100
    longer.attention_mask[0, -2:] = 1
    method = NPO(make_llama(seed=4), reference=make_llama(seed=0), alpha=0.0)
    plain, *others = (method.training_step({"forget": b}, 0).item() for b in (batch, changed, longer))
    assert others == pytest.approx([plain, plain], rel=1e-6)


@pytest.mark.parametrize("kind", ["NLL", "KL"])
def test_the_mean_weight_is_logged_and_falls(kind):
    class Seen(NPO):
        def on_before_optimizer_step(self, optimizer):
            self.weights = [*getattr(self, "weights", []), self._step_parts["weight"].item()]
            super().on_before_optimizer_step(optimizer)

    method = Seen(make_llama(), tokenizer=make_tokenizer(), retain_loss_type=kind)
    method.optimizer = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 3e-3}}
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(max_epochs=8, limit_val_batches=0, accumulate_grad_batches=2, **quiet)
    trainer.fit(method, datamodule=UnlearningDataModule(FORGET, RETAIN, batch_size=2))
    assert method.weights[0] == pytest.approx(1.0, abs=1e-6)
    assert method.weights[-1] < 0.5
    assert trainer.callback_metrics["train/weight"].item() == pytest.approx(method.weights[-1])


@pytest.mark.parametrize("wrong", [{"beta": 0.0}, {"beta": -1.0}, {"beta": float("nan")}])
def test_numbers_out_of_range(wrong):
    with pytest.raises(UnlearunError, match="beta"):
        NPO(make_llama(), **wrong)
