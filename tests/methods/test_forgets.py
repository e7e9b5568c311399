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
from unlearun.methods import (
    CEU,
    DPO,
    METHODS,
    NPO,
    PDU,
    RMU,
    RR,
    TNPO,
    UNDIAL,
    WGA,
    AltPO,
    FineTune,
    GradAscent,
    GradDiff,
    IdkDPO,
    IdkNLL,
    SatImp,
    SimNPO,
    TaskVector,
    UnlearningMethod,
)

STEPS = 20


# What AltPO prefers: two other answers a row, that take turns.
OTHERS = [["In Rome, at a lake.", "In Lima."], ["Ben eats soup.", "Nuts."], ["A cook.", "A judge."], ["Bo.", "Ox."]]
ROWS = [{**row, "others": others} for row, others in zip(FORGET, OTHERS, strict=True)]


def connected_data() -> UnlearningDataModule:
    data = UnlearningDataModule(FORGET, RETAIN, batch_size=4)
    data.connect(make_tokenizer(), alternate="any")
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


CASES = {
    "GradAscent": (GradAscent, {}, 1e-3),
    "GradDiff": (GradDiff, {"alpha": 2.0}, 1e-3),
    "GradDiff-KL": (GradDiff, {"alpha": 2.0, "retain_loss_type": "KL"}, 1e-3),
    "NPO": (NPO, {"alpha": 4.0}, 1e-3),
    "NPO-normalized": (NPO, {"alpha": 4.0, "beta": 2.0, "length_normalized": True, "gamma": 5.0}, 1e-3),
    "TNPO": (TNPO, {"alpha": 2.0}, 1e-3),
    "WGA": (WGA, {"alpha": 2.0}, 1e-3),
    "SatImp": (SatImp, {"gamma": 5.0, "beta1": 1.0, "beta2": 0.1}, 1e-3),
    "UNDIAL": (UNDIAL, {}, 1e-3),
    "CEU": (CEU, {"alpha": 2.0}, 1e-3),
    "PDU": (PDU, {"epsilon": 0.05, "dual_start": 1.0, "dual_step": 10.0, "gamma": 0.05}, 1e-3),
    "DPO": (DPO, {"alpha": 4.0}, 1e-3),
    "AltPO": (AltPO, {"alpha": 4.0}, 1e-3),
    "IdkDPO": (IdkDPO, {"alpha": 4.0}, 1e-3),
    "IdkNLL": (IdkNLL, {"alpha": 2.0}, 2e-3),
    "TaskVector": (TaskVector, {"scale": 2.0}, 1e-3),
    "FineTune": (FineTune, {}, 1e-4),
    "RR": (RR, {"target_layers": [1]}, 1e-3),
    "SimNPO": (SimNPO, {}, 2e-3),
    "RMU": (RMU, {"steering_coeff": 20.0, "alpha": 10.0, "target_layer": 1}, 1e-2),
    "RMU-two-layers": (RMU, {"steering_coeff": 20.0, "alpha": 10.0, "target_layer": [0, 1]}, 1e-2),
    "RMU-adaptive": (RMU, {"steering_coeff": 5.0, "adaptive": True, "alpha": 10.0, "target_layer": 1}, 1e-2),
}


def unlearn(model: LlamaForCausalLM, method: str) -> tuple[float, float]:
    """Return the rise in nats a token on forget and on retain after twenty steps."""
    cls, arguments, learning_rate = CASES[method]
    model = copy.deepcopy(model)
    data = UnlearningDataModule(ROWS, RETAIN, batch_size=4, alternate_key="others" if cls is AltPO else None)
    data.connect(make_tokenizer())
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


WITHOUT_RETAIN = (GradAscent, TaskVector)


def test_no_method_is_left_out():
    assert {cls for cls, *_ in CASES.values()} == set(METHODS)


@pytest.mark.parametrize("method", [name for name, (cls, *_) in CASES.items() if cls is not FineTune])
def test_twenty_steps_forget_and_keep(memorised, method):
    forget_rise, retain_rise = unlearn(memorised, method)
    assert forget_rise > 0.5
    if CASES[method][0] not in WITHOUT_RETAIN:
        assert forget_rise > 3 * retain_rise


def test_twenty_steps_of_ordinary_training_learn_what_they_are_given(memorised):
    """It knows the retain rows even better, and touches the others far less than any method."""
    forget_rise, retain_rise = unlearn(memorised, "FineTune")
    assert retain_rise < 0
    assert forget_rise < 0.5
