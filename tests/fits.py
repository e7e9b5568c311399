"""Fits of tiny models, alone or as one of two processes. Here and not in a test, for a spawned process imports it."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import torch
from conftest import FORGET, RETAIN, make_llama, make_tokenizer
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy

from unlearun.api import find_method
from unlearun.data import UnlearningDataModule
from unlearun.models import LoRA

# Three forget rows: with batches of two the last step is smaller than the others.
ROWS = [{**row, "others": ["No, never.", "Maybe."]} for row in FORGET[:3]]


class Fit(NamedTuple):
    """What is trained.

    Attributes:
        method: Its name.
        options: Its arguments.
        batch_size: Rows of each set a micro-batch and process.
        accumulate: Micro-batches an optimizer step.
        epochs: How often the forget set is passed.
        clip: The longest gradient; 0 for any.
    """

    method: str
    options: dict[str, Any]
    batch_size: int = 2
    accumulate: int = 1
    epochs: int = 3
    clip: float = 0.0


class Fitted(NamedTuple):
    """What came of it.

    Attributes:
        steps: The logged parts of the loss of each optimizer step.
        weights: All weights and buffers at the end.
    """

    steps: list[dict[str, float]]
    weights: dict[str, torch.Tensor]


class Steps(Callback):
    """Keeps what is logged at each optimizer step, summed over processes."""

    def __init__(self) -> None:
        self.found: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        if trainer.global_step > len(self.found):
            logged = trainer.callback_metrics
            self.found.append({name: float(value) for name, value in logged.items() if name.startswith("train/")})


def run(fit: Fit, rank: int | None = None) -> Fitted:
    """Train in float64, alone or as one of two processes that have met already."""
    torch.manual_seed(0)  # adapters begin at random
    options = dict(fit.options)
    if "lora" in options:
        options["lora"] = LoRA(**options["lora"])
    if "reference" in options:  # the seed of another model
        options["reference"] = make_llama(layers=3, seed=options["reference"]).double()
    method = find_method(fit.method)(make_llama(layers=3).double(), tokenizer=make_tokenizer(), **options)
    method.optimizer = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 3e-3}}
    data = UnlearningDataModule(ROWS, RETAIN, batch_size=fit.batch_size, alternate_key="others", seed=3)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    settings: dict[str, Any] = {**quiet, "accelerator": "cpu", "precision": "64-true", "limit_val_batches": 0}
    if rank is not None:
        os.environ.update(LOCAL_RANK=str(rank), NODE_RANK="0", WORLD_SIZE="2")
        settings |= {"devices": 2, "strategy": DDPStrategy(cluster_environment=LightningEnvironment())}
    steps = Steps()
    trainer = Trainer(
        max_epochs=fit.epochs,
        accumulate_grad_batches=fit.accumulate,
        gradient_clip_val=fit.clip or None,
        callbacks=[steps],
        **settings,
    )
    trainer.fit(method, datamodule=data)
    return Fitted(steps.found, {name: value.detach().clone() for name, value in method.state_dict().items()})


def run_all(rank: int, fits: list[Fit]) -> list[Fitted]:
    """Run several fits, one after another, as one of two processes."""
    return [run(fit, rank) for fit in fits]
