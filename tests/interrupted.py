"""Runs that are killed and go on. Here and not in a test, for other processes import it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from conftest import FORGET, PICTURES, RETAIN, make_gpt2, make_tokenizer, no_pictures
from processes import warm
from safetensors.torch import load_file

from unlearun.api import Unlearning
from unlearun.models import LoRA
from unlearun.runs import RunCheckpoint

LONGEST = 300.0


class Case(NamedTuple):
    """What is trained.

    Attributes:
        method: Its name.
        options: Its arguments.
        accumulate: Micro-batches an optimizer step.
    """

    method: str
    options: dict[str, Any]
    accumulate: int = 1


def train(root: str, case: Case, resume: str | None) -> None:
    """Make a run with dropout, a schedule, an evaluation an epoch and a checkpoint a step; none is like the next."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    options = dict(case.options)
    if "lora" in options:
        options["lora"] = LoRA(**options["lora"])
    model = make_gpt2(layers=3, dropout=0.1)
    unlearner = Unlearning(case.method, model=model, tokenizer=make_tokenizer(), output_dir=root, **options)
    unlearner.method.lr_scheduler = {
        "class_path": "torch.optim.lr_scheduler.StepLR",
        "init_args": {"step_size": 1, "gamma": 0.8},
    }
    exact: dict[str, Any] = {}
    if torch.cuda.is_available():  # where some sums are otherwise in another order each time
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
        exact = {"deterministic": True}
    rows = [{**row, "others": ["No, never.", "Maybe."]} for row in FORGET]
    unlearner.load_data(rows, RETAIN, max_new_tokens=4, alternate_key="others")
    with patch(PICTURES, no_pictures):
        unlearner.run(
            batch_size=1,
            learning_rate=3e-3,
            num_epochs=4,
            gradient_accumulation_steps=case.accumulate,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[RunCheckpoint(minutes=0.0)],
            **exact,
            resume=resume,
        )


def finish(root: Path, case: Case) -> dict[str, torch.Tensor]:
    """Start a run, or go on with the one that there is, and return its weights at the end."""
    folders = list(root.glob("*/*/config.yaml"))
    if not list(root.glob("*/*/model")):
        child = warm().Process(target=train, args=(str(root), case, str(folders[0].parent) if folders else None))
        child.start()
        child.join(LONGEST)
        assert child.exitcode == 0
    (model,) = root.glob("*/*/model/model.safetensors")  # killed before its config was there, it began anew
    return load_file(model)


def interrupt(root: Path, case: Case, step: int, seconds: float, number: int = signal.SIGKILL) -> int | None:
    """Start a run and send it a signal some time after it has taken a step.

    A time from the start would be another moment on a machine that is busy.

    Returns:
        Its exit status.
    """
    child = warm().Process(target=train, args=(str(root), case, None))
    child.start()
    while child.is_alive() and steps_left(root) < step:
        time.sleep(0.001)
    time.sleep(seconds)
    if child.is_alive():
        os.kill(child.pid, number)
    child.join(LONGEST)
    return child.exitcode


def steps_left(root: Path) -> int:
    """Return after how many steps the newest checkpoint of a run was written."""
    names = [file.stem for file in root.glob("*/*/checkpoints/epoch*.ckpt")]
    return max((int(name.rpartition("=")[2]) for name in names), default=0)
