"""The reference's last hidden states of every answer, computed once: with its head they give its logits.

Shapes: B rows, N labelled tokens of the batch in row order, V vocabulary, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unlearun.data import Batch
from unlearun.errors import UnlearunError
from unlearun.models.head import HEAD_TOKENS, FrozenHead
from unlearun.models.reference import LiveReference, Reference
from unlearun.models.reference_cache import row_keys


class CachedStates(Reference):
    """The logits of known answers, made of their last hidden states when they are asked.

    An answer is known by its content, prompt included, so a value can never be that of another row.

    Args:
        states: For the key of each row ``(n, D)``, what predicts its n labels; on the CPU.
        head: The frozen model's.
        origin: What the values depend on beside row and weights: dtype and precision.
    """

    def __init__(self, states: dict[int, Tensor], head: FrozenHead, origin: dict[str, Any]) -> None:
        self.states = states
        self.head = head
        self.origin = origin

    @classmethod
    def compute(
        cls, reference: LiveReference, batches: Iterable[Batch], device: torch.device, origin: dict[str, Any]
    ) -> CachedStates:
        """Ask a reference for all rows of some batches.

        Args:
            reference: The frozen start.
            batches: On the device where it runs.
            device: That one.
            origin: See `CachedStates`.
        """
        states: dict[int, Tensor] = {}
        for batch in batches:
            found = reference.states(batch)
            if torch.is_autocast_enabled(found.device.type):  # in which the head would take them anyway
                found = found.to(torch.get_autocast_dtype(found.device.type))
            rows = found.cpu().split(batch.mask.sum(-1).tolist())
            states.update(zip(row_keys(batch), rows, strict=True))
        return cls(states, reference.frozen_head(device), origin)

    def token_logprobs(self, batch: Batch) -> Tensor:
        """Not kept."""
        raise NotImplementedError("cached hidden states serve logits alone")

    def logits(self, batch: Batch) -> Tensor:
        """See `Reference`.

        Raises:
            UnlearunError: A row is not known.
        """
        return torch.cat(list(self.logit_pieces(batch)))

    def logit_pieces(self, batch: Batch) -> Iterator[Tensor]:
        """See `Reference`.

        Raises:
            UnlearunError: A row is not known.
        """
        wanted = [key for key, count in zip(row_keys(batch), batch.mask.sum(-1).tolist(), strict=True) if count]
        if not self._has(wanted):
            raise UnlearunError(
                "the cached reference does not know a row of this batch: it holds the rows that its run draws alone; "
                "set reference_way: weights"
            )
        states = torch.cat([self.states[key] for key in wanted] or [next(iter(self.states.values()))[:0]])
        self.head = self.head.to(batch.labels.device)
        with torch.no_grad():
            for some in states.to(batch.labels.device).split(HEAD_TOKENS):
                yield self.head(some)

    def hidden(self, batch: Batch, layers: Sequence[int]) -> list[Tensor]:
        """Not kept."""
        raise NotImplementedError("only the last hidden states are kept")

    def convert(self, change: Callable[[nn.Module], nn.Module]) -> None:
        """Change the head; the states wait on the CPU as they were computed."""
        self.head = change(self.head)  # type: ignore[assignment]

    def describe(self) -> str:
        """See `Reference`."""
        size = sum(one.numel() * one.element_size() for one in self.states.values())
        copied = self.head.copied_bytes
        head = f", and the head as it was ({copied / 1e9:.2f} GB)" if copied else ""
        return f"the hidden states of {len(self.states)} answers, computed once ({size / 1e9:.2f} GB){head}"

    def knows(self, batches: Iterable[Batch]) -> bool:
        """Say whether every row of some batches is known."""
        return all(self._has(row_keys(batch)) for batch in batches)

    def _has(self, keys: Iterable[int]) -> bool:
        return all(key in self.states for key in keys)
