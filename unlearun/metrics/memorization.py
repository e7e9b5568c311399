"""Metrics that ask whether the likeliest tokens are those of the answer, teacher forced.

The final eos and template tokens do not count. Shapes: B rows, T tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from unlearun.data import Batch
from unlearun.metrics.example_metric import TokenMetric, precise
from unlearun.ops import TokenStats


class ExactMemorization(TokenMetric):
    """The mean share of answer tokens that the argmax hits; 0 to 1.

    On the forget set lower is better. Source: Tirumala 2022 (2205.10770), definition 1.

    >>> ids = torch.tensor([[1, 2, 3]])
    >>> batch = Batch(ids, torch.ones_like(ids), torch.tensor([[-100, 2, 3]]))
    >>> metric = ExactMemorization()
    >>> metric.update(TokenStats(torch.zeros(1, 3), torch.tensor([[False, True, False]])), batch)
    >>> metric.compute().item()
    0.5
    """

    title = "exact_memorization"
    higher_is_better: bool | None = True

    def measure(self, stats: TokenStats, batch: Batch, **more: Any) -> Tensor:
        """Return the share of hits of each row, ``(B, 1)``; of a bare eos, whether that is hit."""
        content = content_of(batch)
        share = precise((stats.hits & content).sum(-1)) / content.sum(-1).clamp(min=1)
        return share.unsqueeze(-1)


class ExtractionStrength(TokenMetric):
    """1 - k/n, k the shortest prefix of the answer after which greedy gives all the rest; 0 to 1.

    0 when no suffix matches, 1 when the whole answer follows from the question. On the forget set lower is better.
    Source: Carlini 2021 (2012.07805); in this form OpenUnlearning (Dorna 2025, 2506.12618), whose code gives 1/n where
    no suffix matches.

    >>> ids = torch.tensor([[1, 2, 3, 4, 5]])
    >>> batch = Batch(ids, torch.ones_like(ids), torch.tensor([[-100, 2, 3, 4, 5]]))
    >>> metric = ExtractionStrength()
    >>> metric.update(TokenStats(torch.zeros(1, 5), torch.tensor([[False, True, False, True, True]])), batch)
    >>> metric.compute().item()
    0.5
    """

    title = "extraction_strength"
    higher_is_better: bool | None = True

    def measure(self, stats: TokenStats, batch: Batch, **more: Any) -> Tensor:
        """Return 1 - k/n of each row, ``(B, 1)``."""
        content = content_of(batch)
        missed = content & ~stats.hits
        # Content tokens behind the last miss: those after which no miss follows, nor is one themselves.
        open_to_the_end = content & (missed.flip(-1).cumsum(-1).flip(-1) == 0)
        share = precise(open_to_the_end.sum(-1)) / content.sum(-1).clamp(min=1)
        return share.unsqueeze(-1)


def content_of(batch: Batch) -> Tensor:
    """Return ``(B, T)`` the labelled tokens without the final eos, or that eos where there is nothing else.

    Args:
        batch: Whose.
    """
    content = batch.content_mask
    return torch.where(content.any(-1, keepdim=True), content, batch.mask)
