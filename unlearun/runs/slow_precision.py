"""A precision that the processor has no instructions for."""

from __future__ import annotations

import logging

import torch
from lightning.pytorch import Trainer

log = logging.getLogger(__name__)


def warn_of_slow_precision(trainer: Trainer) -> None:
    """Say when numbers of 16 bits are computed by a processor that cannot: a step may take ten times as long.

    Args:
        trainer: About to run.
    """
    precision = str(trainer.precision)
    if trainer.strategy.root_device.type == "cpu" and precision.startswith("bf16") and not computes_bf16():
        log.warning(
            "this processor has no instructions for bfloat16, so %s is several times slower than 32-true here; set "
            "--trainer.precision 32-true",
            precision,
        )


def computes_bf16() -> bool:
    """Say whether the processor has instructions for bfloat16, as far as PyTorch tells."""
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):  # a build without oneDNN, such as for Apple's processors
        return True
