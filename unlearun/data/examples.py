"""Rows as token ids. Those of a set lie one after another in one array, and each row is a view of its part."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import overload

from unlearun.data.collecting import uncollected
from unlearun.data.rows import Item


@dataclass(frozen=True, slots=True)
class Example:
    """One row as token ids.

    Attributes:
        example_id: The row's number in its set.
        input_ids: Prompt, answer and, unless the answer was cut, the end-of-sequence token.
        start: Where the labelled tokens begin.
        ends: Whether the last token is the end-of-sequence token.
        item: The text it was made of.
        kind: Which answer it has: its own, the paraphrase or a wrong one; see `Batch`.
    """

    example_id: int
    input_ids: Sequence[int]
    start: int
    ends: bool
    item: Item
    kind: int = 0

    @property
    def labelled(self) -> int:
        """How many tokens are labelled."""
        return len(self.input_ids) - self.start


class TokenIds(Sequence[int]):
    """Part of an array of token ids; it equals a list of the same ids, and its slices are lists.

    A list would take ten times the four bytes a token that the array takes.

    Args:
        ids: The array.
        start: Where the part begins.
        stop: Where it ends.

    >>> TokenIds(array("i", [5, 6, 7, 8]), 1, 3)
    [6, 7]
    """

    __slots__ = ("_ids", "_start", "_stop")

    def __init__(self, ids: array[int], start: int, stop: int) -> None:
        self._ids = ids
        self._start = start
        self._stop = stop

    def __len__(self) -> int:
        return self._stop - self._start

    @overload
    def __getitem__(self, index: int) -> int: ...

    @overload
    def __getitem__(self, index: slice) -> list[int]: ...

    def __getitem__(self, index: int | slice) -> int | list[int]:
        return self._ids[self._start : self._stop].tolist()[index]

    def __iter__(self) -> Iterator[int]:
        return iter(self[:])

    def __eq__(self, other: object) -> bool:
        return self[:] == list(other) if isinstance(other, (list, tuple, TokenIds)) else NotImplemented

    __hash__ = None  # type: ignore[assignment] # as a list has none

    def __repr__(self) -> str:
        return repr(self[:])


def _integers() -> array[int]:
    return array("i")


@dataclass
class TokenTable:
    """The rows of a set as token ids, without their texts.

    Attributes:
        tokens: The ids of all rows, one after another.
        lengths: How many tokens each row has.
        starts: Where its labelled tokens begin.
        ends: 1 where its last token is the end-of-sequence token, else 0.
        items: The place of the item that it was made of; a plain text gives several rows.
        cuts: How many answers were cut.
    """

    tokens: array[int] = field(default_factory=_integers)
    lengths: array[int] = field(default_factory=_integers)
    starts: array[int] = field(default_factory=_integers)
    ends: array[int] = field(default_factory=_integers)
    items: array[int] = field(default_factory=_integers)
    cuts: int = 0

    def __len__(self) -> int:
        return len(self.lengths)

    def add(self, ids: Sequence[int], start: int, ends: bool, item: int) -> None:
        """Add a row.

        Args:
            ids: Its tokens.
            start: Where the labelled ones begin.
            ends: Whether the last is the end-of-sequence token.
            item: The place of its item.
        """
        self.tokens.extend(ids)
        self.lengths.append(len(ids))
        self.starts.append(start)
        self.ends.append(ends)
        self.items.append(item)

    def examples(self, items: Sequence[Item], ids: Sequence[int] | None = None) -> list[Example]:
        """Return the rows as examples.

        Args:
            items: What they were made of.
            ids: The number of each row; None counts from 0.
        """
        examples = []
        at = 0
        columns = zip(self.lengths, self.starts, self.ends, self.items, strict=True)
        with uncollected():
            for number, (length, start, ends, item) in enumerate(columns):
                row = TokenIds(self.tokens, at, at + length)
                examples.append(Example(number if ids is None else ids[number], row, start, bool(ends), items[item]))
                at += length
        return examples
