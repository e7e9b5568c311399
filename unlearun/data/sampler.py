"""Which rows go into which step, on which process: planned ahead, so that every batch knows its step's size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import torch
from torch.utils.data import Dataset
from torch.utils.data.distributed import DistributedSampler

from unlearun.data.batch import Batch
from unlearun.data.collate import collate, collate_filler
from unlearun.data.examples import Example

T = TypeVar("T")


@dataclass(frozen=True)
class Draw:
    """The rows of one micro-batch on one process.

    Attributes:
        rows: Positions in the set; none where the last step has no row for this process.
        step_tokens: Labelled tokens of the whole optimizer step, all micro-batches and processes.
        step_rows: Its rows.
        step_singles: Those of them that have one labelled token alone.
        alternate_tokens: Labelled tokens of the same rows' alternate answers.
        turns: How often each of the rows was drawn before, by which its alternate answers take turns.
    """

    rows: tuple[int, ...]
    step_tokens: int
    step_rows: int
    step_singles: int = 0
    alternate_tokens: int = 0
    turns: tuple[int, ...] = ()


class RowStream:
    """An endless stream of shuffled rows: each permutation is used up before the next begins.

    It has no state: where row k stands follows from (seed, k) alone, so every process sees the same stream, and a
    run that is resumed at the end of an epoch goes on in it.

    Args:
        size: How many rows the set has.
        seed: What the permutations are drawn from.
        shuffle: False keeps the order of the set.
    """

    def __init__(self, size: int, seed: int, shuffle: bool = True) -> None:
        self.size = size
        self.seed = seed
        self.shuffle = shuffle

    def slice(self, start: int, stop: int) -> list[int]:
        """Return the rows at positions ``start`` to ``stop`` of the stream."""
        rows: list[int] = []
        while start < stop:
            cycle, offset = divmod(start, self.size)
            taken = self._permutation(cycle)[offset : offset + stop - start]
            rows += taken
            start += len(taken)
        return rows

    def _permutation(self, cycle: int) -> list[int]:
        if not self.shuffle:
            return list(range(self.size))
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + cycle) % 2**63)
        return torch.randperm(self.size, generator=generator).tolist()


class StepSampler(DistributedSampler[Draw]):
    """Yields a `Draw` for each micro-batch of an epoch.

    An epoch takes ``epoch_rows`` rows of the stream, dealt out so that an optimizer step takes the same rows
    whatever the split into micro-batches and processes. It is a DistributedSampler so that Lightning leaves it
    alone and tells it the epoch.

    Args:
        lengths: Labelled tokens of each row.
        stream: The order of the rows.
        epoch_rows: How many rows an epoch takes: the size of the anchored set.
        batch_size: Rows a micro-batch and process.
        accumulate: Micro-batches an optimizer step.
        rank: This process.
        world_size: How many processes there are.
        alternate_lengths: Labelled tokens of each row's alternate answers, if there are alternates.
        most: At most so many micro-batches of an epoch will be run; the last step is then as small as they make it.

    Attributes:
        start: So many micro-batches of an epoch are passed over, for a run that goes on within it.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        stream: RowStream,
        epoch_rows: int,
        batch_size: int,
        accumulate: int = 1,
        rank: int = 0,
        world_size: int = 1,
        alternate_lengths: Sequence[Sequence[int]] | None = None,
        most: int | None = None,
    ) -> None:
        super().__init__(range(epoch_rows), num_replicas=world_size, rank=rank, shuffle=False)  # type: ignore[arg-type]
        self.lengths = lengths
        self.alternate_lengths = alternate_lengths
        self.stream = stream
        self.epoch_rows = epoch_rows
        self.most = most
        self.batch_size = batch_size
        self.accumulate = accumulate
        self.start = 0

    def __len__(self) -> int:
        """Return the number of micro-batches an epoch, the same on all processes."""
        return -(-self.epoch_rows // (self.batch_size * self.num_replicas))

    def __iter__(self) -> Iterator[Draw]:
        return islice(self._plan(), self.start, None)

    def _plan(self) -> Iterator[Draw]:
        first = self.epoch * self.epoch_rows
        rows = self.stream.slice(first, first + self.epoch_rows)
        micro = self.batch_size * self.num_replicas
        step = micro * self.accumulate
        if self.most is not None:
            rows = rows[: self.most * micro]
        for start in range(0, len(rows), step):
            window = rows[start : start + step]
            tokens = sum(self.lengths[row] for row in window)
            singles = sum(self.lengths[row] == 1 for row in window)
            others = self.alternate_lengths
            # Every pass of the stream has every row once.
            passes = [(first + start + i) // self.stream.size for i in range(len(window))]
            drawn = list(zip(window, passes, strict=True))
            alternate = sum(in_turn(others[row], row, turn) for row, turn in drawn) if others else 0
            for offset in range(0, len(window), micro):
                share = drawn[offset : offset + micro]
                # A full micro-batch is dealt in blocks, the last and smaller one evenly.
                size = -(-len(share) // self.num_replicas)
                mine = share[self.rank * size : (self.rank + 1) * size]
                rows_of, turns = (tuple(pair[i] for pair in mine) for i in (0, 1))
                yield Draw(rows_of, tokens, len(window), singles, alternate, turns)


class DrawnBatches(Dataset[Batch]):
    """Makes the batch of a `Draw`; a plain number gives that batch of the set in its own order.

    Args:
        examples: The rows of a set.
        pad_id: What stands in padding.
        alternates: The same rows with other answers, one or several, if the method needs them.
        batch_size: Rows a batch, where a plain number is asked for: when Lightning overfits the first batches.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        pad_id: int,
        alternates: Sequence[Sequence[Example]] | None = None,
        batch_size: int = 1,
    ) -> None:
        self.examples = examples
        self.pad_id = pad_id
        self.alternates = alternates
        self.batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self.examples) // self.batch_size)

    def __getitem__(self, draw: Draw | int) -> Batch:
        if isinstance(draw, int):
            rows = range(len(self.examples))[draw * self.batch_size : (draw + 1) * self.batch_size]
            lengths = [self.examples[row].labelled for row in rows]
            draw = Draw(tuple(rows), sum(lengths), len(rows), lengths.count(1))
        batch = self._collate([self.examples[row] for row in draw.rows], draw, draw.step_tokens)
        batch.step_singles = draw.step_singles
        if self.alternates is not None:
            turns = draw.turns or [0] * len(draw.rows)
            others = [in_turn(self.alternates[row], row, turn) for row, turn in zip(draw.rows, turns, strict=True)]
            batch.alternate = self._collate(others, draw, draw.alternate_tokens or None)
        return batch

    def _collate(self, examples: Sequence[Example], draw: Draw, step_tokens: int | None) -> Batch:
        if not examples:
            return collate_filler(self.examples[0], self.pad_id, step_tokens, draw.step_rows)
        return collate(examples, self.pad_id, step_tokens, draw.step_rows)


def in_turn(options: Sequence[T], row: int, turn: int) -> T:
    """Return what a row has the next time: its options one after the other, not all rows beginning with the first.

    >>> [in_turn("abc", 1, turn) for turn in range(4)]
    ['b', 'c', 'a', 'b']
    """
    return options[(row + turn) % len(options)]
