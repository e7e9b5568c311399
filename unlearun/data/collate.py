"""Make a batch of examples: right-padded, masks and labels from lengths alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from unlearun.data.batch import Batch
from unlearun.data.examples import Example
from unlearun.ops.logprobs import IGNORED


def collate(
    examples: Sequence[Example], pad_id: int, step_tokens: int | None = None, step_rows: int | None = None
) -> Batch:
    """Pad examples to the longest of them.

    Args:
        examples: At least one.
        pad_id: What stands in the padding; nothing ever looks at it.
        step_tokens: See `Batch`.
        step_rows: See `Batch`.

    Returns:
        A batch of ``(B, T)`` tensors.
    """
    longest = max(len(example.input_ids) for example in examples)
    shape = (len(examples), longest)
    input_ids = torch.full(shape, pad_id, dtype=torch.long)
    attention_mask = torch.zeros(shape, dtype=torch.long)
    labels = torch.full(shape, IGNORED, dtype=torch.long)
    for i, example in enumerate(examples):
        length = len(example.input_ids)
        input_ids[i, :length] = torch.tensor(example.input_ids[:])
        attention_mask[i, :length] = 1
        labels[i, example.start : length] = input_ids[i, example.start : length]
    topics = tuple(example.item.topic for example in examples)
    return Batch(
        input_ids,
        attention_mask,
        labels,
        example_id=torch.tensor([example.example_id for example in examples]),
        ends=torch.tensor([example.ends for example in examples]),
        kind=torch.tensor([example.kind for example in examples]),
        topics=topics if any(topics) else None,
        step_tokens=step_tokens,
        step_rows=step_rows,
    )


def collate_filler(like: Example, pad_id: int, step_tokens: int | None, step_rows: int | None) -> Batch:
    """Make a batch of one row without labels, for a process that has no row left in the last step.

    Args:
        like: A row whose tokens it may have.
        pad_id: What stands in padding.
        step_tokens: See `Batch`.
        step_rows: See `Batch`.

    Returns:
        A batch that counts for nothing, so that all processes run equally many steps.
    """
    batch = collate([like], pad_id, step_tokens, step_rows)
    batch.labels.fill_(IGNORED)
    batch.example_id = torch.tensor([-1])
    batch.ends = torch.tensor([False])
    batch.texts = ("",)
    return batch
