"""A short fit in each precision. Here for a spawned process to import."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import torch
from conftest import FORGET, RETAIN, make_llama, make_tokenizer
from lightning.pytorch import Trainer
from lightning.pytorch.plugins import MixedPrecision, Precision
from lightning.pytorch.plugins.environments import LightningEnvironment

from unlearun.api import find_method
from unlearun.data import UnlearningDataModule
from unlearun.methods import UnlearningMethod
from unlearun.models.sharding import length

PRECISIONS = ("32-true", "bf16-mixed", "bf16-true", "16-mixed")
CLIP = 0.5


class Found(NamedTuple):
    """What a fit has shown.

    Attributes:
        steps: The parts of the loss of each optimizer step, over all processes.
        losses: Which types they, and what was differentiated, had.
        weights: Which types the weights had.
        lengths: Of the clipped gradients.
    """

    steps: list[dict[str, float]]
    losses: set[torch.dtype]
    weights: set[torch.dtype]
    lengths: list[float]


def fit(
    precision: str,
    method: str,
    options: dict[str, Any],
    plugin: Precision | None = None,
    rank: int | None = None,
    accelerator: str = "cpu",
) -> Found:
    """Train for four steps of two micro-batches, clipped, alone or as one of two processes under FSDP2."""
    found = Found([], set(), set(), [])
    made = find_method(method)(make_llama(layers=3), tokenizer=make_tokenizer(), **options)
    made.optimizer = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 3e-3}}
    watch(made, found)
    settings: dict[str, Any] = {"precision": precision}
    if precision == "16-mixed":  # for which Lightning would take bf16-mixed on a CPU; and no step shall overflow
        kind = "cpu" if accelerator == "cpu" else "cuda"
        settings = {"plugins": [plugin or MixedPrecision("16-mixed", kind, torch.amp.GradScaler(kind, 2.0**4))]}
    if rank is not None:
        os.environ.update(LOCAL_RANK=str(rank), NODE_RANK="0", WORLD_SIZE="2")
        settings["plugins"] = [*settings.get("plugins", []), LightningEnvironment()]
        settings |= {"devices": 2, "strategy": "fsdp2"}
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    if accelerator == "gpu":
        settings["devices"] = 1
    trainer = Trainer(
        accelerator=accelerator, max_epochs=4, accumulate_grad_batches=2, gradient_clip_val=CLIP, **quiet, **settings
    )
    data = UnlearningDataModule(FORGET, RETAIN, batch_size=2 if rank is None else 1, max_new_tokens=3, max_eval_rows=2)
    trainer.fit(made, datamodule=data)
    return found


def watch(method: UnlearningMethod, found: Found) -> None:
    """Note what a method logs and differentiates."""
    log, step = method.log, method.training_step

    def keep(name: str, value: Any, **settings: Any) -> None:
        if name.startswith("train/"):
            if method.trainer.global_step == len(found.steps):
                found.steps.append({})
            found.losses.add(value.dtype)
            found.steps[-1][name] = float(method.across_processes(value))
        log(name, value, **settings)

    def look(*arguments: Any) -> torch.Tensor:
        loss = step(*arguments)
        found.losses.add(loss.dtype)
        found.weights.update(weight.dtype for weight in method.policy.parameters())
        return loss

    def clipped(optimizer: torch.optim.Optimizer, **settings: Any) -> None:
        method.clip_gradients(optimizer, **settings)
        found.lengths.append(float(length([w.grad for w in method.policy.parameters() if w.grad is not None])))

    method.log, method.training_step = keep, look  # type: ignore[method-assign]
    method.configure_gradient_clipping = clipped  # type: ignore[method-assign]


def fit_all(rank: int, cases: list[tuple[str, str, dict[str, Any]]]) -> list[Found]:
    """Train in several precisions, one after another, as one of two processes."""
    return [fit(*case, rank=rank) for case in cases]
