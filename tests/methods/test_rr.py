from __future__ import annotations

import pytest
import torch
from conftest import FORGET, RETAIN, elsewhere_changed, make_gpt2, make_llama, make_tokenizer, random_batch
from lightning.pytorch import Trainer

from unlearun.data import UnlearningDataModule
from unlearun.errors import UnlearunError
from unlearun.methods import RR
from unlearun.methods.rr import holding_loss, rerouting_loss

MASK = torch.tensor([[True, True, True, False]])


def test_values_by_hand():
    """Angles of 0°, 90° and 180° and one that is not labelled: cosines 1, 0 and -1 give 1 + 0 + 0; the distances of
    (2, 0), (0, 1), (-1, 0) from (1, 0) are 1, √2 and 2."""
    hidden = torch.tensor([[[2.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [7.0, 7.0]]])
    frozen = torch.tensor([[[1.0, 0.0]] * 4])
    assert rerouting_loss(hidden, frozen, MASK).item() == pytest.approx(1.0)
    assert holding_loss(hidden, frozen, MASK).item() == pytest.approx(3 + 2**0.5)


def states(model, batch, layer):
    """What a decoder layer puts out, by transformers' own bookkeeping (every layer but the last)."""
    output = model(batch.input_ids, attention_mask=batch.attention_mask, output_hidden_states=True)
    return output.hidden_states[layer + 1].double()


@pytest.mark.parametrize("make", [make_llama, make_gpt2])
def test_against_full_forwards(make):
    """Token means over two layers; before the first step only forget has a weight."""
    start, moved = make(layers=4, seed=0), make(layers=4, seed=4)
    forget, retain = random_batch(seed=1), random_batch(seed=2)
    method = RR(moved, reference=start, target_layers=[0, 2], gamma=3.0)
    loss = method.training_step({"forget": forget, "retain": retain}, 0)
    moved.eval()
    cosines, distances = [], []
    for layer in (0, 2):
        now, before = states(moved, forget, layer), states(start, forget, layer)
        angle = (now * before).sum(-1) / (now.norm(dim=-1) * before.norm(dim=-1))
        cosines += angle[forget.labels != -100].clamp(min=0).tolist()
        difference = states(moved, retain, layer) - states(start, retain, layer)
        distances += difference.pow(2).sum(-1).sqrt()[retain.labels != -100].tolist()
    assert loss.item() == pytest.approx(3.0 * sum(cosines) / len(cosines), rel=1e-4)
    assert method._step_parts["retain_loss"].item() == pytest.approx(sum(distances) / len(distances), rel=1e-4)


def test_starts_at_1_and_0():
    method = RR(make_llama(layers=4))
    method.training_step({"forget": random_batch(seed=1), "retain": random_batch(seed=2)}, 0).backward()
    assert method._step_parts["forget_loss"].item() == pytest.approx(1.0, abs=1e-5)
    assert method._step_parts["retain_loss"].item() == pytest.approx(0.0, abs=1e-5)
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in method.parameters())


@pytest.mark.parametrize(
    ("schedule", "expected"), [(None, [0, 1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6]), (3, [0, 1 / 3, 2 / 3, 1, 1, 1])]
)
def test_the_weights_follow_the_steps(schedule, expected):
    """Six steps, of two micro-batches each: gamma (1 - t/2T) and alpha t/2T."""

    class Seen(RR):
        def on_before_optimizer_step(self, optimizer):
            weights.append((self.forget_weight, self.retain_weight))
            super().on_before_optimizer_step(optimizer)

    weights = []
    method = Seen(make_llama(), tokenizer=make_tokenizer(), gamma=3.0, alpha=5.0, schedule_steps=schedule)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(max_epochs=6, limit_val_batches=0, accumulate_grad_batches=2, **quiet)
    trainer.fit(method, datamodule=UnlearningDataModule(FORGET, RETAIN, batch_size=2))
    for (forget, retain), progress in zip(weights, expected, strict=True):
        assert forget == pytest.approx(3.0 * (1 - progress / 2))
        assert retain == pytest.approx(5.0 * progress / 2)


def test_trains_the_layers_up_to_the_last_that_is_read():
    method = RR(make_llama(layers=8), target_layers=[3, 1])
    assert method.target_layers == (1, 3)
    trained = {name.split(".")[2] for name, weight in method.model.named_parameters() if weight.requires_grad}
    assert trained == {"0", "1", "2", "3"}
    assert not method.model.get_input_embeddings().weight.requires_grad
    assert RR(make_llama(layers=32)).target_layers == (9, 19)


def test_only_labelled_tokens_count():
    batch = random_batch()
    method = RR(make_llama(layers=4, seed=4), reference=make_llama(layers=4, seed=0), target_layers=[1])
    for part in (method.forget_loss, method.retain_loss):
        plain, *others = (part(b).mean().item() for b in (batch, *elsewhere_changed(batch)))
        assert others == pytest.approx([plain, plain], rel=1e-5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [([], "empty; name layers from 0 to 3"), ([1, 4], "target layer is 4, but the model has layers 0 to 3")],
)
def test_layers_out_of_range(wrong, message):
    with pytest.raises(UnlearunError, match=message):
        RR(make_llama(layers=4), target_layers=wrong)


def test_a_fit_without_an_end_needs_the_length_of_the_schedule():
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(max_epochs=-1, max_time={"seconds": 5}, limit_val_batches=0, **quiet)
    with pytest.raises(UnlearunError, match="set schedule_steps"):
        trainer.fit(RR(make_llama(), tokenizer=make_tokenizer()), datamodule=UnlearningDataModule(FORGET, RETAIN))


def test_steps_out_of_range():
    with pytest.raises(UnlearunError, match="schedule_steps"):
        RR(make_llama(), schedule_steps=0)
