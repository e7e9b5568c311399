"""The random states of all processes, as plain values that a checkpoint can hold."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer
from torch import distributed


def random_state() -> dict[str, Any]:
    """Return the states of Python, numpy, torch and its devices in this process."""
    kind, keys, *place = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": [str(kind), torch.from_numpy(np.asarray(keys).astype(np.int64)), *map(float, place)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def from_all(trainer: Trainer, own: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the states of all processes, by their ranks.

    Args:
        trainer: All its processes ask.
        own: That of this one.
    """
    if trainer.world_size == 1:
        return [own]
    found: list[Any] = [None] * trainer.world_size
    distributed.all_gather_object(found, own)
    return found


def restore_random_state(trainer: Trainer, states: list[dict[str, Any]]) -> None:
    """Draw on as the process with this rank did, if as many processes run as did then.

    Args:
        trainer: Knows the rank.
        states: What `from_all` gave.
    """
    if len(states) != trainer.world_size:
        return
    own = states[trainer.global_rank]
    version, internal, following = own["python"]
    random.setstate((version, tuple(internal), following))
    kind, keys, position, has_gauss, gauss = own["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), int(position), int(has_gauss), gauss))
    torch.set_rng_state(own["torch"])
    if own["cuda"] and len(own["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(own["cuda"])
