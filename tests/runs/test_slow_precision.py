"""A precision that the processor cannot compute is warned of."""

from __future__ import annotations

import pytest

from unlearun import runs
from unlearun.runs import slow_precision


@pytest.mark.parametrize(
    ("able", "precision", "warned"),
    [(False, "bf16-mixed", True), (False, "32-true", False), (True, "bf16-mixed", False)],
)
def test_it_is_said_where_it_costs_time(able, precision, warned, monkeypatch, caplog):
    monkeypatch.setattr(slow_precision, "computes_bf16", lambda: able)
    with runs.making_trainer():
        from lightning.pytorch import Trainer

        trainer = Trainer(accelerator="cpu", devices=1, precision=precision, logger=False, enable_checkpointing=False)
    slow_precision.warn_of_slow_precision(trainer)
    assert ("no instructions for bfloat16" in caplog.text) == warned


def test_it_asks_the_processor():
    assert slow_precision.computes_bf16() in (True, False)
