"""A torchmetrics metric that keeps one record an example and counts each example once.

Shapes: B rows, T tokens, E distinct examples, C columns of a record.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from unlearun.data import OWN, Batch
from unlearun.errors import UnlearunError
from unlearun.ops import TokenStats
from unlearun.records import Score, mean

# Stands in the states for the id of a row that has none. Numbers are given late: a batch's own, or a process's
# own, would be those of others too.
ANONYMOUS = -1


def precise(tensor: Tensor) -> Tensor:
    """Return a tensor in float64, or in float32 on Apple's GPUs, which have none."""
    return tensor.to(_precision(tensor.device))


def _precision(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64


class ExampleMetric(Metric):
    """Base of metrics over the examples of a set.

    Each becomes a record under its ``example_id``. Rows that a sampler repeats count once, and rows without labels do
    not count, so the value is the same for any number of processes.

    Attributes:
        title: The name in tables and records.
        columns: The numbers of a record; by default one, called like the metric.
        score: How records become the value; by default the mean of the first column.
        other_answers: Whether it reads the paraphrase and the wrong answers too.
    """

    is_differentiable: bool | None = False
    full_state_update: bool | None = False
    title: ClassVar[str]
    columns: tuple[str, ...] = ()
    score: Score
    other_answers: bool = False

    ids: list[Tensor]
    records: list[Tensor]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "title" in vars(cls):
            cls.columns = vars(cls).get("columns", (cls.title,))
            cls.score = vars(cls).get("score", Score(cls.title, cls.columns, mean))

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("ids", default=[], dist_reduce_fx="cat")
        self.add_state("records", default=[], dist_reduce_fx="cat")

    def compute(self) -> Any:  # noqa: ANN401 - a scalar, or several by name
        """Return the value over distinct examples; NaN where there are none."""
        return self._value(self.score)

    def per_example(self) -> dict[int, dict[str, float]]:
        """Return the record of each example, keyed by its id; after a sync, of all processes."""
        ids, records = self.distinct()
        rows = records.tolist()
        return {key: dict(zip(self.columns, row, strict=True)) for key, row in zip(ids.tolist(), rows, strict=True)}

    def distinct(self) -> tuple[Tensor, Tensor]:
        """Return the ids ``(E,)`` in rising order and their records ``(E, C)``."""
        if isinstance(self.ids, list) and not self.ids:  # after a sync these are tensors
            return torch.empty(0, dtype=torch.long), torch.empty(0, len(self.columns))
        ids, records = dim_zero_cat(self.ids), dim_zero_cat(self.records)
        ids = _number_anonymous(ids)
        order = ids.argsort(stable=True)
        ids, records = ids[order], records[order]
        first = torch.ones_like(ids, dtype=torch.bool)
        first[1:] = ids[1:] != ids[:-1]
        return ids[first], records[first]

    def plot(self, val: Any = None, ax: Any = None) -> Any:  # noqa: ANN401 - matplotlib's types
        """Plot one value, or several over time.

        Args:
            val: What `compute` or `forward` returned, or a list of it; None computes.
            ax: Where to draw; None makes a figure.

        Returns:
            matplotlib's figure and axes.
        """
        return self._plot(val, ax)

    def _value(self, score: Score) -> Tensor:
        ids, records = self.distinct()
        if not len(ids):
            return torch.tensor(float("nan"))
        chosen = [self.columns.index(column) for column in score.columns]
        # Back to where the states are: torchmetrics gathers values of several processes.
        value = score.value(records[:, chosen].double().cpu().numpy())
        return torch.tensor(value, dtype=_precision(self.device), device=self.device)

    def _checked(self, records: Tensor, rows: int) -> Tensor:
        expected = (rows, len(self.columns))
        if not isinstance(records, Tensor) or tuple(records.shape) != expected:
            found = tuple(records.shape) if isinstance(records, Tensor) else type(records).__name__
            raise UnlearunError(
                f"{type(self).__name__}.measure returned {found}; expected a tensor of shape {expected}: one row an "
                f"example, one number for each of {', '.join(self.columns)}"
            )
        return records

    def _keep(self, ids: Tensor | None, records: Tensor) -> None:
        if ids is None:
            ids = torch.full((len(records),), ANONYMOUS, device=records.device)
        self.ids.append(ids)
        self.records.append(precise(records))

    def _sync_dist(self, *args: Any, **kwargs: Any) -> None:
        """Let a process that was fed nothing take part: torchmetrics would send a shape that fits no other's."""
        if not self.ids:
            self._keep(None, torch.empty(0, len(self.columns), device=self.device))
        super()._sync_dist(*args, **kwargs)


class TokenMetric(ExampleMetric):
    """Base of metrics that read `TokenStats`."""

    @abstractmethod
    def measure(self, stats: TokenStats, batch: Batch, **more: Any) -> Tensor:
        """Reduce token statistics to records.

        Args:
            stats: ``(B, T)`` statistics.
            batch: The rows they belong to.
            more: What else `update` was given.

        Returns:
            ``(B, C)`` numbers, one a column.
        """

    def counted(self, batch: Batch) -> Tensor:
        """Return ``(B,)`` which rows become records: those with labels and their own answer."""
        labelled = batch.mask.any(-1)
        return labelled if batch.kind is None else labelled & (batch.kind == OWN)

    def update(self, stats: TokenStats, batch: Batch, **more: Any) -> None:
        """Take in one batch.

        Args:
            stats: ``(B, T)`` statistics of its tokens.
            batch: Its rows, those with other answers than their own left out; without ``example_id`` each row is an
                example of its own.
            more: What else `measure` needs.
        """
        kept = self.counted(batch)
        records = self._checked(self.measure(stats, batch, **more), len(batch))
        self._keep(None if batch.example_id is None else batch.example_id[kept], records[kept])


class TextMetric(ExampleMetric):
    """Base of metrics that read what the model says by itself.

    Attributes:
        reads: What it is compared with: the "answer", or the "short_answer" of the rows that have one.
    """

    reads: ClassVar[Literal["answer", "short_answer"]] = "answer"

    @abstractmethod
    def measure(self, generated: Sequence[str], references: Sequence[str]) -> Tensor:
        """Reduce texts to records.

        Args:
            generated: B greedy continuations.
            references: B answers.

        Returns:
            ``(B, C)`` numbers, one a column.
        """

    def update(
        self, generated: Sequence[str], references: Sequence[str], example_id: Tensor | Sequence[int] | None = None
    ) -> None:
        """Take in some texts.

        Args:
            generated: B greedy continuations.
            references: B answers.
            example_id: ``(B,)`` which example each is; None: each is one of its own.
        """
        ids = None if example_id is None else torch.as_tensor(example_id, device=self.device, dtype=torch.long)
        if generated:
            records = self._checked(self.measure(generated, references), len(generated))
        else:
            records = torch.empty(0, len(self.columns))
        self._keep(ids, records.to(self.device))


def _number_anonymous(ids: Tensor) -> Tensor:
    """Give rows without an id numbers above all others, so that each counts as an example of its own."""
    anonymous = ids == ANONYMOUS
    first = int(ids.max()) + 1 if len(ids) else 0
    return torch.where(anonymous, first + anonymous.cumsum(0) - 1, ids)
