"""Every method forgets, and keeps: the one test that a flipped sign anywhere in a loss cannot pass.

A two-layer model first learns four forget and six retain answers by heart. Twenty steps of a method must raise the
negative log-likelihood of the forget answers by more than half a nat a token, and by three times the rise on retain.
"""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import FORGET, RETAIN, make_llama, make_tokenizer
from lightning.pytorch import Trainer
from transformers import LlamaForCausalLM

from unlearun.data import Batch, UnlearningDataModule, collate
from unlearun.methods import DPO, NPO, RMU, GradAscent, GradDiff, SimNPO, UnlearningMethod

STEPS = 20


def connected_data() -> UnlearningDataModule:
    data = UnlearningDataModule(FORGET, RETAIN, batch_size=4)
    data.connect(make_tokenizer(), needs_alternate=True)
    return data


def whole_set(data: UnlearningDataModule, name: str) -> Batch:
    return collate(data.examples(name), pad_id=0)


def token_nll(model: LlamaForCausalLM, batch: Batch) -> float:
    """Transformers' own loss: the mean over labelled tokens."""
    with torch.no_grad():
        return float(model(batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels).loss)


@pytest.fixture(scope="module")
def memorised() -> LlamaForCausalLM:
    torch.manual_seed(0)
    data = connected_data()
    refusals = collate(data.alternates(), pad_id=0)
    batches = [whole_set(data, "forget"), whole_set(data, "retain")]
    model = make_llama(layers=2, width=64).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.0)
    for _ in range(150):
        optimizer.zero_grad()
        for batch in batches:
            model(batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels).loss.backward()
        optimizer.step()
    assert all(token_nll(model, batch) < 0.1 for batch in batches)
    assert token_nll(model, refusals) > 1.0
    return model.eval()


METHODS = {
    "GradAscent": (GradAscent, {}, 1e-3),
    "GradDiff": (GradDiff, {"alpha": 2.0}, 1e-3),
    "GradDiff-KL": (GradDiff, {"alpha": 2.0, "retain_loss_type": "KL"}, 1e-3),
    "NPO": (NPO, {"alpha": 4.0}, 1e-3),
    "DPO": (DPO, {"alpha": 4.0}, 1e-3),
    "SimNPO": (SimNPO, {}, 2e-3),
    "RMU": (RMU, {"steering_coeff": 20.0, "alpha": 10.0, "target_layer": 1}, 1e-2),
    "RMU-adaptive": (RMU, {"steering_coeff": 5.0, "adaptive": True, "alpha": 10.0, "target_layer": 1}, 1e-2),
}


def unlearn(model: LlamaForCausalLM, method: str) -> tuple[float, float]:
    """Return the rise in nats a token on forget and on retain after twenty steps."""
    cls, arguments, learning_rate = METHODS[method]
    model = copy.deepcopy(model)
    data = connected_data()
    forget, retain = whole_set(data, "forget"), whole_set(data, "retain")
    before = token_nll(model, forget), token_nll(model, retain)
    unlearner: UnlearningMethod = cls(model, tokenizer=make_tokenizer(), **arguments)
    unlearner.optimizer = {"class_path": "torch.optim.AdamW", "init_args": {"lr": learning_rate}}
    trainer = Trainer(
        max_steps=STEPS,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    trainer.fit(unlearner, datamodule=data)
    assert trainer.global_step == STEPS
    model.eval()
    return token_nll(model, forget) - before[0], token_nll(model, retain) - before[1]


@pytest.mark.parametrize("method", METHODS)
def test_twenty_steps_forget_and_keep(memorised, method):
    forget_rise, retain_rise = unlearn(memorised, method)
    assert forget_rise > 0.5
    if METHODS[method][0] is not GradAscent:
        assert forget_rise > 3 * retain_rise
