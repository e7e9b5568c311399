from __future__ import annotations

import math

import pytest
import torch
from conftest import FORGET, RETAIN, answer_tokens, elsewhere_changed, make_llama, make_tokenizer, random_batch
from lightning.pytorch import Trainer

from unlearun.data import UnlearningDataModule
from unlearun.errors import UnlearunError
from unlearun.methods import TNPO
from unlearun.methods.tnpo import tnpo_loss, tnpo_weight
from unlearun.models import CachedLogprobs

MASK = torch.tensor([[True, True, False]])


def test_value_by_hand():
    """Gains -2 and 0 with β = 0.5: 4 log(1 + e^-1) + 4 log 2 = 1.253047 + 2.772589."""
    assert tnpo_loss(torch.tensor([[-2.0, 0.0, 9.0]]), MASK, beta=0.5).item() == pytest.approx(4.025636, abs=1e-5)


def test_weight_by_hand():
    """2 σ(-1) + 2 σ(0) = 2/(1 + e) + 1 = 1.537883."""
    assert tnpo_weight(torch.tensor([[-2.0, 0.0, 9.0]]), MASK, 0.5).item() == pytest.approx(1.537883, abs=1e-5)


def token_logprobs(model, batch):
    return [scores.log_softmax(-1)[label].item() for row in answer_tokens(model, batch) for scores, label in row]


def test_against_a_plain_loop():
    start, moved, batch, beta = make_llama(seed=0), make_llama(seed=4), random_batch(seed=1), 0.8
    pairs = zip(token_logprobs(moved, batch), token_logprobs(start, batch), strict=True)
    losses = [2 / beta * math.log1p(math.exp(beta * (now - before))) for now, before in pairs]
    loss = TNPO(moved, reference=start, beta=beta, alpha=0.0).training_step({"forget": batch}, 0)
    assert loss.item() == pytest.approx(sum(losses) / len(losses), rel=1e-4)


def test_the_weight_is_what_the_gradient_has():
    gains = torch.tensor([[-40.0, 0.0, 5.0]], dtype=torch.float64, requires_grad=True)
    tnpo_loss(gains, torch.ones(1, 3, dtype=torch.bool), 0.4).backward()
    expected = [tnpo_weight(gain.view(1, 1), MASK[:, :1], 0.4).item() for gain in gains.detach()[0]]
    assert gains.grad[0].tolist() == pytest.approx(expected)


def test_only_labelled_tokens_count():
    batch = random_batch()
    method = TNPO(make_llama(seed=4), reference=make_llama(seed=0), alpha=0.0)
    plain, *others = (method.training_step({"forget": b}, 0).item() for b in (batch, *elsewhere_changed(batch)))
    assert others == pytest.approx([plain, plain], rel=1e-6)


def fit(way: str, epochs: int = 5) -> list[float]:
    class Seen(TNPO):
        def on_before_optimizer_step(self, optimizer):
            found.append({name: part.item() for name, part in self._step_parts.items()})
            super().on_before_optimizer_step(optimizer)

    found = []
    method = Seen(make_llama().double(), tokenizer=make_tokenizer(), reference_way=way)
    method.optimizer = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 3e-3}}
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(max_epochs=epochs, limit_val_batches=0, precision="64-true", **quiet)
    trainer.fit(method, datamodule=UnlearningDataModule(FORGET, RETAIN, batch_size=2))
    if way == "cache":
        assert isinstance(method.reference, CachedLogprobs)
        assert all(len(values) > 1 for values in method.reference.values.values())
    return found


def test_the_cache_of_every_token_gives_the_same_steps_as_the_weights_put_back():
    cached, live = fit("cache"), fit("weights")
    assert len(cached) == 10
    for one, other in zip(cached, live, strict=True):
        assert one == pytest.approx(other, rel=1e-9)
    assert cached[0]["weight"] == pytest.approx(1.0, abs=1e-9)
    assert cached[-1]["weight"] < 0.9


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("nan")])
def test_numbers_out_of_range(wrong):
    with pytest.raises(UnlearunError, match="beta"):
        TNPO(make_llama(), beta=wrong)
