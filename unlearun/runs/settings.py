"""Settings of the Trainer: checked where Lightning would take nonsense, and in a line where it refuses it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from unlearun.errors import UnlearunError, check_bounds

LARGEST_SEED = 2**32 - 1
# A few more processes than cores are slow, and may be a trial; more are a slip, and bring the machine down.
PROCESSES_A_CORE = 4
# What Lightning takes and then makes no sense of.
LEAST = {"accumulate_grad_batches": 1, "gradient_clip_val": 0, "log_every_n_steps": 0, "num_sanity_val_steps": -1}


def check_settings(config: Mapping[str, Any]) -> None:
    """Check arguments of the Trainer that Lightning would take.

    Args:
        config: What the user gave.

    Raises:
        UnlearunError: A number is out of range, or there are not so many devices.
    """
    check_bounds(**{f"trainer.{name}": (config.get(name), least) for name, least in LEAST.items()})
    devices, accelerator = str(config.get("devices", "auto")), config.get("accelerator", "auto")
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and not torch.accelerator.is_available())
    if on_cpu and "deepspeed" in str(config.get("strategy")).lower():
        raise UnlearunError("DeepSpeed needs a GPU that CUDA can use, and there is none: leave out --trainer.strategy")
    cores = os.cpu_count() or 1
    if on_cpu and devices.isdecimal() and int(devices) > PROCESSES_A_CORE * cores:
        raise UnlearunError(
            f"trainer.devices is {devices}, but there is no accelerator and the CPU has {cores} cores, each of which "
            f"serves {PROCESSES_A_CORE} processes at most; set it to {cores} or less"
        )


def check_seed(seed: Any) -> None:  # noqa: ANN401 - what a parser or a user gave
    """Check that a number can seed all generators.

    Args:
        seed: True and False are none, and left to Lightning.

    Raises:
        UnlearunError: It cannot.
    """
    if isinstance(seed, bool) or seed is None:
        return
    if not isinstance(seed, int) or not 0 <= seed <= LARGEST_SEED:
        raise UnlearunError(f"the seed is {seed!r}; it must be a whole number from 0 to {LARGEST_SEED}")


@contextmanager
def making_trainer() -> Iterator[None]:
    """Say in a line what keeps a Trainer from being made: nothing else is at work then than the user's settings."""
    try:
        yield
    except (MisconfigurationException, ValueError, TypeError, RuntimeError, ImportError) as error:
        raise _refused(error) from error


@contextmanager
def running_trainer() -> Iterator[None]:
    """Say in a line what Lightning finds wrong with the settings of a run that has begun; all else is no mistake."""
    try:
        yield
    except MisconfigurationException as error:
        raise _refused(error) from error


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C be Ctrl-C: Lightning tidies up after it, and then exits as if something had gone wrong."""
    try:
        yield
    except SystemExit as end:
        if isinstance(end.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise


def _refused(error: Exception) -> UnlearunError:
    reason = " ".join(str(error).split())
    if "No supported gpu backend" in reason:
        reason = "there is no GPU here that torch can use; leave out --trainer.accelerator, or set it to cpu"
    return UnlearunError(f"the Trainer cannot be set up so: {reason}")
