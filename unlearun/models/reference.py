"""What a loss needs of the model as it was before unlearning.

Shapes: B rows, T tokens, N labelled tokens of the batch in row order, V vocabulary, D width.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from copy import deepcopy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from unlearun.data import Batch
from unlearun.models.policy import Policy
from unlearun.ops import sequence_logprobs

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)


class Reference(ABC):
    """The frozen start, asked for exactly what a loss needs. It is no module: it is never in a checkpoint."""

    @abstractmethod
    def sequence_logprobs(self, batch: Batch) -> Tensor:
        """Return S_ref ``(B,)``, the summed log-probability of each answer, in nats."""

    @abstractmethod
    def logits(self, batch: Batch) -> Tensor:
        """Return the scores ``(N, V)`` that predict the labels."""

    @abstractmethod
    def hidden(self, batch: Batch, layer: int) -> Tensor:
        """Return what decoder layer ``layer``, counted from 0, puts out, ``(B, T, D)``."""

    @abstractmethod
    def convert(self, change: Callable[[nn.Module], nn.Module]) -> None:
        """Change device or precision of what is kept.

        Args:
            change: Takes a module and returns it changed.
        """


class FrozenCopy(Reference):
    """A copy of the whole model, from the weights in memory.

    Args:
        model: The model as it is now; it stays as it is.
        copy: False takes the model itself, which then must serve nothing else.
    """

    def __init__(self, model: PreTrainedModel, copy: bool = True) -> None:
        frozen = Policy(deepcopy(model) if copy else model).requires_grad_(False)
        self.policy: nn.Module = frozen.eval()
        size = sum(p.numel() * p.element_size() for p in frozen.parameters())
        log.info("reference: a frozen copy of the whole model (%.2f GB)", size / 1e9)

    @torch.no_grad()
    def sequence_logprobs(self, batch: Batch) -> Tensor:
        """See `Reference`."""
        logprobs = self._on(batch)(batch, "logprobs")
        return sequence_logprobs(logprobs, batch.mask)[0]

    @torch.no_grad()
    def logits(self, batch: Batch) -> Tensor:
        """See `Reference`."""
        logits: Tensor = self._on(batch)(batch, "logits")
        return logits

    @torch.no_grad()
    def hidden(self, batch: Batch, layer: int) -> Tensor:
        """See `Reference`."""
        hidden: Tensor = self._on(batch)(batch, "hidden", layer)
        return hidden

    def convert(self, change: Callable[[nn.Module], nn.Module]) -> None:
        """See `Reference`."""
        self.policy = change(self.policy)

    def _on(self, batch: Batch) -> nn.Module:
        return self.policy.to(batch.input_ids.device)
