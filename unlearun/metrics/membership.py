"""Membership inference: can one tell the forget set from rows that the model never saw?

Shapes: B rows, T tokens, N labelled tokens of a row.
"""

from __future__ import annotations

import zlib
from typing import Any, Literal

import torch
from torch import Tensor

from unlearun.data import Batch
from unlearun.errors import check_choice
from unlearun.metrics.example_metric import ExampleMetric, TokenMetric, precise
from unlearun.ops import TokenStats, sequence_logprobs
from unlearun.records import Score, mean

Attack = Literal["loss", "zlib", "min_k", "min_k_plus_plus", "reference"]
TITLES: dict[str, str] = {
    "loss": "mia",
    "zlib": "mia_zlib",
    "min_k": "mia_min_k",
    "min_k_plus_plus": "mia_min_k_plus_plus",
    "reference": "mia_reference",
}
# min-k reads the lowest 40% of an answer's log-probabilities; below this deviation a token has no spread to speak of.
LOWEST_SHARE = 0.4
LEAST_DEVIATION = 1e-3


class MembershipScore(TokenMetric):
    """A score of each example that is higher for members: rows that the model was trained on.

    loss: S/n (Yeom 2018, 1709.01604). zlib: S/n over the bytes of the zlib-compressed answer (Carlini 2021,
    2012.07805). min_k: the mean of the lowest 40% of an answer's log-probabilities (Shi 2023, 2310.16789).
    min_k_plus_plus: the same of (lp - μ)/σ (Zhang 2024, 2404.02936). reference: (S - S_ref)/n (Carlini 2021). The value
    is the mean over examples. The end of an answer counts as a token of it; OpenUnlearning leaves it out of min-k and
    min-k++.

    Args:
        attack: Which score.
        share: The share of lowest tokens that min-k reads.
        kwargs: See `torchmetrics.Metric`.

    >>> ids = torch.tensor([[1, 2, 3]])
    >>> batch = Batch(ids, torch.ones_like(ids), torch.tensor([[-100, 2, 3]]))
    >>> metric = MembershipScore("min_k")
    >>> metric.update(TokenStats(torch.tensor([[0.0, -1.0, -3.0]]), torch.zeros(1, 3, dtype=torch.bool)), batch)
    >>> metric.compute().item()
    -3.0
    """

    title = "membership_score"
    higher_is_better: bool | None = None

    def __init__(self, attack: Attack = "loss", share: float = LOWEST_SHARE, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_choice("attack", attack, list(TITLES))
        self.attack = attack
        self.share = share
        self.columns = (TITLES[attack],)
        self.score = Score(TITLES[attack], self.columns, mean)

    def update(self, stats: TokenStats, batch: Batch, reference: Tensor | None = None) -> None:  # type: ignore[override]
        """Take in one batch.

        Args:
            stats: ``(B, T)`` statistics of its tokens; min-k++ needs all of them.
            batch: Its rows; zlib needs their texts.
            reference: ``(B,)`` S_ref, for the reference attack.
        """
        super().update(stats, batch, reference=reference)

    def measure(self, stats: TokenStats, batch: Batch, reference: Tensor | None = None, **more: Any) -> Tensor:
        """Return the score of each row, ``(B, 1)``."""
        logprobs, mask = precise(stats.logprobs), batch.mask
        total, count = sequence_logprobs(logprobs, mask)
        found = total / count.clamp(min=1)
        if self.attack == "zlib":
            found = found / _compressed_bytes(batch).to(found)
        elif self.attack == "min_k":
            found = _lowest(logprobs, mask, self.share)
        elif self.attack == "min_k_plus_plus":
            if stats.mean is None or stats.deviation is None:
                raise ValueError("min-k++ needs the mean and the deviation of TokenStats")
            spread = precise(stats.deviation).clamp(min=LEAST_DEVIATION)
            found = _lowest((logprobs - precise(stats.mean)) / spread, mask, self.share)
        elif self.attack == "reference":
            if reference is None:
                raise ValueError(
                    "the reference attack needs the reference's log-probabilities: update(..., reference=)"
                )
            found = (total - reference.to(total)) / count.clamp(min=1)
        return found.unsqueeze(-1)


class GradientNorm(ExampleMetric):
    """Minus the length of the gradient of an example's loss: higher for members. A pass of its own, so opt-in.

    The loss is -S/n, the length the 2-norm over all weights. The value is the mean over examples.
    Source: Wang 2024, Pandora's White-Box (2402.17012); OpenUnlearning's code takes the mean of the lengths of each
    weight tensor instead, and leaves the eos out.

    >>> metric = GradientNorm()
    >>> metric.update(torch.tensor([3.0]), torch.tensor([0]))
    >>> metric.compute().item()
    -3.0
    """

    title = "mia_grad_norm"
    higher_is_better: bool | None = None

    def update(self, norms: Tensor, example_id: Tensor | None = None) -> None:
        """Take in some examples.

        Args:
            norms: ``(B,)`` lengths of their gradients.
            example_id: ``(B,)`` which examples they are.
        """
        self._keep(example_id, -precise(norms).unsqueeze(-1))


def _lowest(values: Tensor, mask: Tensor, share: float) -> Tensor:
    """Return the mean of the lowest max(1, ⌊share · n⌋) values of each row, ``(B,)``."""
    count = mask.sum(-1)
    chosen = (precise(count) * share).floor().clamp(min=1)
    ordered = values.masked_fill(~mask, float("inf")).sort(-1).values
    low = torch.arange(values.shape[-1], device=values.device) < chosen.unsqueeze(-1)
    total = torch.where(low, ordered, 0).sum(-1)
    broken = (values.isnan() & mask).any(-1)  # sorting would put NaN behind the padding
    return torch.where(broken, torch.nan, torch.where(count > 0, total / chosen, 0))


def _compressed_bytes(batch: Batch) -> Tensor:
    if batch.texts is None:
        raise ValueError("the zlib attack reads the answers as text, which this batch lacks: Batch(texts=...)")
    return torch.tensor([len(zlib.compress(text.encode())) for text in batch.texts])
