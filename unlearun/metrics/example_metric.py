"""A torchmetrics metric that keeps one record an example and counts each example once.

Shapes: B rows, T tokens, E distinct examples, C numbers a record.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from unlearun.data import Batch
from unlearun.ops import TokenStats

# Stands in the states for the id of a row that has none. Numbers are given late: a batch's own, or a process's
# own, would be those of others too.
ANONYMOUS = -1


def precise(tensor: Tensor) -> Tensor:
    """Return a tensor in float64, or in float32 on Apple's GPUs, which have none."""
    return tensor.float() if tensor.device.type == "mps" else tensor.double()


class ExampleMetric(Metric):
    """Base of metrics over the answers of a set.

    Each row of a batch becomes a record under its ``example_id``. Rows that a sampler repeats count once, and rows
    without labels do not count, so the value is the same for any number of processes.

    Attributes:
        title: The name in tables and records.
    """

    is_differentiable: bool | None = False
    full_state_update: bool | None = False
    title: ClassVar[str]

    ids: list[Tensor]
    records: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("ids", default=[], dist_reduce_fx="cat")
        self.add_state("records", default=[], dist_reduce_fx="cat")

    @abstractmethod
    def measure(self, stats: TokenStats, batch: Batch) -> Tensor:
        """Reduce token statistics to records.

        Args:
            stats: ``(B, T)`` statistics.
            batch: The rows they belong to.

        Returns:
            ``(B, C)`` numbers, whatever `reduce` and `value` need.
        """

    @abstractmethod
    def reduce(self, records: Tensor) -> Tensor:
        """Turn the records ``(E, C)`` of distinct examples into the metric's value."""

    @abstractmethod
    def value(self, records: Tensor) -> Tensor:
        """Turn records ``(E, C)`` into one value an example, ``(E,)``."""

    def update(self, stats: TokenStats, batch: Batch) -> None:
        """Take in one batch.

        Args:
            stats: ``(B, T)`` statistics of its tokens.
            batch: Its rows; without ``example_id`` each row is an example of its own.
        """
        kept = batch.mask.any(-1)
        ids = batch.example_id
        if ids is None:
            ids = torch.full((len(batch),), ANONYMOUS, device=kept.device)
        self.ids.append(ids[kept])
        self.records.append(self.measure(stats, batch)[kept])

    def compute(self) -> Tensor:
        """Return the value over distinct examples; NaN where there are none."""
        _, records = self.distinct()
        return self.reduce(records) if len(records) else torch.tensor(float("nan"))

    def distinct(self) -> tuple[Tensor, Tensor]:
        """Return the ids ``(E,)`` in rising order and their records ``(E, C)``."""
        if isinstance(self.ids, list) and not self.ids:  # after a sync these are tensors
            return torch.empty(0, dtype=torch.long), torch.empty(0, 1)
        ids, records = dim_zero_cat(self.ids), dim_zero_cat(self.records)
        ids = _number_anonymous(ids)
        order = ids.argsort(stable=True)
        ids, records = ids[order], records[order]
        first = torch.ones_like(ids, dtype=torch.bool)
        first[1:] = ids[1:] != ids[:-1]
        return ids[first], records[first]

    def per_example(self) -> dict[int, float]:
        """Return one value an example, keyed by its id; after a sync, of all processes."""
        ids, records = self.distinct()
        if not len(ids):
            return {}
        return dict(zip(ids.tolist(), self.value(records).tolist(), strict=True))


class MeanMetric(ExampleMetric):
    """Base of metrics that are the mean of one number an example."""

    def reduce(self, records: Tensor) -> Tensor:
        """See `ExampleMetric`."""
        return records[:, 0].mean()

    def value(self, records: Tensor) -> Tensor:
        """See `ExampleMetric`."""
        return records[:, 0]


def _number_anonymous(ids: Tensor) -> Tensor:
    """Give rows without an id numbers above all others, so that each counts as an example of its own."""
    anonymous = ids == ANONYMOUS
    first = int(ids.max()) + 1 if len(ids) else 0
    return torch.where(anonymous, first + anonymous.cumsum(0) - 1, ids)
