"""Metrics that read how likely the right answer is, teacher forced.

Shapes: B rows, T tokens, E distinct examples.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unlearun.data import Batch
from unlearun.metrics.example_metric import ExampleMetric, MeanMetric, precise
from unlearun.ops import TokenStats, sequence_logprobs


class Perplexity(ExampleMetric):
    """The exponential of the mean negative log-likelihood over all answer tokens of a set; from 1 upwards.

    Forget: higher is better. Retain: lower is better.

    >>> from unlearun.data import Batch
    >>> batch = Batch(*torch.tensor([[[1, 2]], [[1, 1]], [[-100, 2]]]))
    >>> metric = Perplexity()
    >>> metric.update(TokenStats(torch.tensor([[0.0, -1.0]]), torch.tensor([[False, True]])), batch)
    >>> round(metric.compute().item(), 3)
    2.718
    """

    title = "perplexity"
    higher_is_better: bool | None = False

    def measure(self, stats: TokenStats, batch: Batch) -> Tensor:
        """Return S and n of each row, ``(B, 2)``."""
        total, count = sequence_logprobs(precise(stats.logprobs), batch.mask)
        return torch.stack([total, count.to(total.dtype)], dim=-1)

    def reduce(self, records: Tensor) -> Tensor:
        """Weigh every token alike."""
        total, count = records.sum(0)
        return (-total / count).exp()

    def value(self, records: Tensor) -> Tensor:
        """Return each answer's own perplexity."""
        return (-records[:, 0] / records[:, 1]).exp()


class Probability(MeanMetric):
    """The mean over examples of exp(S/n), the geometric mean probability of the answer's tokens; 0 to 1.

    On the forget set lower is better. Source: TOFU (Maini 2024, 2401.06121), section 2.2.
    """

    title = "probability"
    higher_is_better: bool | None = True

    def measure(self, stats: TokenStats, batch: Batch) -> Tensor:
        """Return exp(S/n) of each row, ``(B, 1)``."""
        total, count = sequence_logprobs(precise(stats.logprobs), batch.mask)
        return (total / count.clamp(min=1)).exp().unsqueeze(-1)


class ExactMemorization(MeanMetric):
    """The mean share of answer tokens that the argmax hits, teacher forced, without the final eos; 0 to 1.

    On the forget set lower is better. Source: Tirumala 2022 (2205.10770).
    """

    title = "exact_memorization"
    higher_is_better: bool | None = True

    def measure(self, stats: TokenStats, batch: Batch) -> Tensor:
        """Return the share of hits of each row, ``(B, 1)``; of a bare eos, whether that is hit."""
        content = batch.content_mask
        content = torch.where(content.any(-1, keepdim=True), content, batch.mask)
        share = precise((stats.hits & content).sum(-1)) / content.sum(-1).clamp(min=1)
        return share.unsqueeze(-1)
