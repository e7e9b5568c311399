"""The batch that every part of the library hands on.

Shapes: B rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from unlearun.ops import answer_mask

# What the answer of a row is: the row's own, the same in other words, or, from here on, one of the wrong ones.
OWN, PARAPHRASE, WRONG = 0, 1, 2


@dataclass
class Batch:
    """Token ids with their labels. Made by the collator, or by hand.

    Attributes:
        input_ids: ``(B, T)`` token ids, prompt and answer.
        attention_mask: ``(B, T)`` 1 at real tokens, 0 at padding.
        labels: ``(B, T)`` token ids of the answer, -100 elsewhere; a row without labels counts for nothing.
        example_id: ``(B,)`` which row of its set each is, whatever the order, rank or epoch; -1 for a filler.
        alternate: The same rows with other answers, for DPO.
        ends: ``(B,)`` whether the last label is the end-of-sequence token; None means that no row has one.
        kind: ``(B,)`` which answer to its question each row has: 0 its own, 1 the paraphrase, 2 and above the
            wrong ones; None means that all are their own.
        texts: The answers as text, B of them, for scores that read it.
        topics: What each row is about, B of them; None where no row says so.
        step_tokens: Labelled tokens of this set over all micro-batches and ranks of the optimizer step; None
            means that this batch is the whole step.
        step_rows: Rows of this set over the same; None likewise.
        step_singles: Those of them with one labelled token alone; None likewise.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    example_id: Tensor | None = None
    alternate: Batch | None = None
    ends: Tensor | None = None
    kind: Tensor | None = None
    texts: tuple[str, ...] | None = None
    topics: tuple[str | None, ...] | None = None
    step_tokens: int | None = None
    step_rows: int | None = None
    step_singles: int | None = None

    def __len__(self) -> int:
        return self.input_ids.shape[0]

    @property
    def mask(self) -> Tensor:
        """``(B, T)`` True at labelled tokens, the end-of-sequence token included."""
        return answer_mask(self.labels)

    @property
    def content_mask(self) -> Tensor:
        """``(B, T)`` True at labelled tokens, the end-of-sequence token left out."""
        mask = self.mask
        if self.ends is None:
            return mask
        last = mask.flip(-1).cumsum(-1).flip(-1) == 1
        return mask & ~(last & self.ends.unsqueeze(-1))

    @property
    def token_count(self) -> int:
        """Labelled tokens of the optimizer step, to divide a sum over tokens by."""
        return int(self.mask.sum()) if self.step_tokens is None else self.step_tokens

    @property
    def row_count(self) -> int:
        """Rows with an answer of the optimizer step, to divide a sum over rows by."""
        return int(self.mask.any(-1).sum()) if self.step_rows is None else self.step_rows

    @property
    def inner_mask(self) -> Tensor:
        """``(B, T)`` True at labelled tokens that are not the first of their row, or are its only one."""
        mask = self.mask
        first = mask & (mask.cumsum(-1) == 1)
        return mask & ~(first & (mask.sum(-1, keepdim=True) > 1))

    @property
    def inner_count(self) -> int:
        """Those tokens of the optimizer step."""
        if self.step_tokens is None or self.step_rows is None or self.step_singles is None:
            return int(self.inner_mask.sum())
        return self.step_tokens - self.step_rows + self.step_singles

    def select(self, rows: Tensor) -> Batch:
        """Return some of the rows, padded to the longest of them.

        Args:
            rows: ``(B,)`` True at the rows to keep.
        """
        used = self.attention_mask[rows].any(0)
        chosen: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        for name, value in chosen.items():
            if isinstance(value, Tensor):
                chosen[name] = value[rows] if value.ndim == 1 else value[rows][:, used]
            elif isinstance(value, Batch):
                chosen[name] = value.select(rows)
        for name in ("texts", "topics"):
            if chosen[name] is not None:
                chosen[name] = tuple(one for one, keep in zip(chosen[name], rows.tolist(), strict=True) if keep)
        return Batch(**chosen)

    def split(self, questions: int) -> list[Batch]:
        """Cut it into parts of about equal size, the rows of a question together.

        Args:
            questions: At most so many questions a part; rows without ``example_id`` are questions of their own.
        """
        ids = torch.arange(len(self)) if self.example_id is None else self.example_id
        number = {key: i for i, key in enumerate(dict.fromkeys(ids.tolist()))}
        count = -(-len(number) // questions)
        part = torch.tensor([number[key] * count // len(number) for key in ids.tolist()], device=self.labels.device)
        return [self.select(part == i) for i in range(count)] if count > 1 else [self]

    def pin_memory(self) -> Batch:
        """Return a copy in page-locked memory, from which copies to a GPU overlap with work."""
        return self.map(lambda tensor: tensor.pin_memory())

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """Return a copy on another device.

        Args:
            device: Where to.
            non_blocking: Whether the copy may overlap with work on the host.
        """
        return self.map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """Return a batch whose tensors, those of the alternate included, are changed alike.

        Args:
            change: Takes a tensor and returns another.
        """
        changed: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        for name, value in changed.items():
            if isinstance(value, Tensor):
                changed[name] = change(value)
            elif isinstance(value, Batch):
                changed[name] = value.map(change)
        return Batch(**changed)
