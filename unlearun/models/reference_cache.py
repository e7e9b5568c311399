"""The reference's log-probability of every answer, computed once, so that no second model is kept.

Shapes: B rows, T tokens.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unlearun.data import Batch
from unlearun.errors import UnlearunError
from unlearun.files import write_whole
from unlearun.models.reference import LiveReference, Reference

FILES = {"sums": "reference.json", "tokens": "reference_tokens.json"}


class CachedLogprobs(Reference):
    """S_ref of known answers, or the log-probabilities that it is the sum of.

    An answer is known by its content, prompt included, so a value can never be that of another row.

    Args:
        values: For the key of each row, in nats, the log-probability of each label or, alone, their sum.
        origin: What the values depend on beside the row: weights, dtype, precision, and whether they are summed.
    """

    def __init__(self, values: dict[int, list[float]], origin: dict[str, Any]) -> None:
        self.values = values
        self.origin = origin

    @classmethod
    def compute(
        cls, reference: Reference, batches: Iterable[Batch], origin: dict[str, Any], summed: bool = True
    ) -> CachedLogprobs:
        """Ask a reference for all rows of some batches.

        Args:
            reference: The frozen start.
            batches: On the device where it runs.
            origin: See `CachedLogprobs`.
            summed: Whether the sum of each row is enough.
        """
        values: dict[int, list[float]] = {}
        for batch in batches:
            if summed:
                found = [[total] for total in reference.sequence_logprobs(batch).tolist()]
            else:
                rows = zip(reference.token_logprobs(batch), batch.mask, strict=True)
                found = [logprobs[mask].tolist() for logprobs, mask in rows]
            values.update(zip(row_keys(batch), found, strict=True))
        return cls(values, origin)

    def token_logprobs(self, batch: Batch) -> Tensor:
        """See `Reference`; sums alone do not serve it.

        Raises:
            UnlearunError: A row is not known.
        """
        values = [value for row in self._find(batch) for value in row]
        found = self._as_tensor(values, batch)
        return torch.zeros(batch.labels.shape, dtype=found.dtype, device=found.device).masked_scatter(batch.mask, found)

    def sequence_logprobs(self, batch: Batch) -> Tensor:
        """See `Reference`; 0 of a row without labels.

        Raises:
            UnlearunError: A row is not known.
        """
        return self._as_tensor([sum(row) for row in self._find(batch)], batch)

    def logits(self, batch: Batch) -> Tensor:
        """Not kept."""
        raise NotImplementedError("a cache of log-probabilities has no logits")

    def hidden(self, batch: Batch, layers: Sequence[int]) -> list[Tensor]:
        """Not kept."""
        raise NotImplementedError("a cache of log-probabilities has no hidden states")

    def convert(self, change: Callable[[nn.Module], nn.Module]) -> None:
        """Nothing to change: these are plain numbers."""

    def describe(self) -> str:
        """See `Reference`."""
        return f"the log-probabilities of {len(self.values)} answers, computed once"

    def write(self, folder: Path) -> None:
        """Write it into a run folder, whole or not at all."""
        rows = {str(key): value for key, value in self.values.items()}
        write_whole(
            folder / FILES[self.origin.get("values", "sums")], json.dumps({"origin": self.origin, "rows": rows})
        )

    @classmethod
    def read(cls, folder: Path, summed: bool = True) -> CachedLogprobs | None:
        """Read what `write` wrote; None where there is nothing that can be read.

        Args:
            folder: The run folder.
            summed: Whether the sums are wanted, or the numbers that they are made of.
        """
        try:
            stored = json.loads((folder / FILES["sums" if summed else "tokens"]).read_text(encoding="utf-8"))
            values = {int(key): [float(value) for value in row] for key, row in stored["rows"].items()}
            return cls(values, dict(stored["origin"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            return None

    def knows(self, batches: Iterable[Batch]) -> bool:
        """Say whether every row of some batches is known, and has as many values as it needs."""
        summed = self.origin.get("values", "sums") == "sums"
        return all(
            len(self.values.get(key, ())) == (1 if summed else labels)
            for batch in batches
            for key, labels in zip(row_keys(batch), batch.mask.sum(-1).tolist(), strict=True)
        )

    def _find(self, batch: Batch) -> list[list[float]]:
        """Return the values of each row, none of one without labels."""
        rows = _rows(batch)
        if not all(empty or key in self.values for key, empty in rows):
            raise UnlearunError(
                "the cached reference does not know a row of this batch: it holds the forget rows of its run alone; "
                "set reference_way: weights"
            )
        return [[] if empty else self.values[key] for key, empty in rows]

    def _as_tensor(self, values: list[float], batch: Batch) -> Tensor:
        exact = self.origin.get("dtype") == "torch.float64"
        return torch.tensor(values, dtype=torch.float64 if exact else torch.float32, device=batch.labels.device)


def row_keys(batch: Batch) -> list[int]:
    """Return a number for each row that follows from its tokens and labels alone, whatever the padding.

    Args:
        batch: Rows.

    Returns:
        B keys of 63 bits.
    """
    return [key for key, _ in _rows(batch)]


def weights_digest(reference: LiveReference) -> str:
    """Return 16 hexadecimal digits that change when any weight of a reference does.

    Args:
        reference: With the weights that its numbers come from.
    """
    state = hashlib.sha256()
    for name, weight in reference.weights():
        local: Any = weight.to_local() if hasattr(weight, "to_local") else weight  # a shard stands for itself
        values = local.detach().double().flatten()
        # Sums catch any change of one weight, the second any exchange of two.
        place = torch.linspace(1, 2, len(values), dtype=torch.float64, device=values.device)
        sums = [float(values.sum()), float(values @ place)]
        state.update(json.dumps([name, list(weight.shape), *sums]).encode())
    return state.hexdigest()[:16]


def _rows(batch: Batch) -> list[tuple[int, bool]]:
    """Return key and emptiness of each row."""
    found = []
    columns = zip(batch.input_ids.tolist(), batch.attention_mask.tolist(), batch.labels.tolist(), strict=True)
    for ids, mask, labels in columns:
        real = [(token, label) for token, seen, label in zip(ids, mask, labels, strict=True) if seen]
        content = hashlib.sha256(json.dumps(real).encode()).digest()
        found.append((int.from_bytes(content[:8], "big") >> 1, all(label == -100 for _, label in real[1:])))
    return found
