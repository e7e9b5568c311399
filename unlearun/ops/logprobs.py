"""Log-probabilities of labelled tokens.

Shapes: B rows, T tokens, N labelled tokens, V vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

IGNORED = -100
STATS_TOKENS = 32  # reduced at a time: for 50k words their temporaries just fit a CPU's cache, and more are slower


class TokenStats(NamedTuple):
    """What is kept of the logits of a batch.

    Attributes:
        logprobs: ``(B, T)`` log-probability of each label, in nats, 0 where there is no label.
        hits: ``(B, T)`` whether the likeliest token is the label, False where there is no label.
        mean: ``(B, T)`` μ = Σ_v p_v log p_v, the mean log-probability under the model's own distribution, in nats,
            0 where there is no label; None where nobody asked for it.
        deviation: ``(B, T)`` σ = √(Σ_v p_v (log p_v)² − μ²), likewise.
    """

    logprobs: Tensor
    hits: Tensor
    mean: Tensor | None = None
    deviation: Tensor | None = None


def answer_mask(labels: Tensor) -> Tensor:
    """Return where the labelled tokens stand.

    Args:
        labels: ``(B, T)`` token ids, -100 outside the answer.

    Returns:
        ``(B, T)`` booleans; never True at the first token, which nothing predicts.

    >>> answer_mask(torch.tensor([[5, -100, 7]]))
    tensor([[False, False,  True]])
    """
    mask = labels != IGNORED
    mask[:, 0] = False
    return mask


def token_logprobs(logits: Tensor, labels: Tensor) -> Tensor:
    """Compute the log-probability of each label, in at least fp32.

    Args:
        logits: ``(N, V)`` scores at the positions that predict the labels.
        labels: ``(N,)`` token ids, none of them -100.

    Returns:
        ``(N,)`` log-probabilities in nats.

    >>> token_logprobs(torch.zeros(1, 4), torch.tensor([2])).exp()
    tensor([0.2500])
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    picked = logits.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    return picked - logits.logsumexp(-1)


def token_stats(logits: Tensor, labels: Tensor) -> TokenStats:
    """Reduce logits to what metrics read, in at least fp32 and a few tokens at a time.

    Args:
        logits: ``(N, V)`` scores at the positions that predict the labels; -inf forbids a token.
        labels: ``(N,)`` token ids, none of them -100.

    Returns:
        Statistics of ``(N,)`` tensors, all four of them; a gradient goes through the log-probabilities alone.

    >>> stats = token_stats(torch.zeros(1, 4), torch.tensor([0]))
    >>> stats.mean.exp(), stats.deviation
    (tensor([0.2500]), tensor([0.]))
    """
    dtype, rows = torch.promote_types(logits.dtype, torch.float32), min(len(logits), STATS_TOKENS)
    # For all chunks: fresh memory costs more than what is done in it.
    work = torch.empty(2, rows, logits.shape[-1], dtype=dtype, device=logits.device)
    with torch.no_grad():
        chunks = zip(logits.split(STATS_TOKENS), labels.split(STATS_TOKENS), strict=True)
        stats = TokenStats(*map(torch.cat, zip(*(_reduce(*chunk, work) for chunk in chunks), strict=True)))
    return stats._replace(logprobs=token_logprobs(logits, labels)) if logits.requires_grad else stats


def _reduce(logits: Tensor, labels: Tensor, work: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Reduce ``(n, V)`` logits in place in two buffers ``(2, at least n, V)``."""
    scores, weights = work[:, : len(logits)]
    top, guess = scores.copy_(logits).max(-1)
    picked = scores.gather(-1, labels.unsqueeze(-1)).squeeze(-1) - top
    # exp(-1e4) is 0 in any precision: clamping changes no number and keeps 0 * -inf away.
    scores.sub_(top.unsqueeze(-1)).clamp_(min=-1e4)
    total = torch.exp(scores, out=weights).sum(-1)
    mean = weights.mul_(scores).sum(-1) / total
    # The deviation of log p is that of the scores, which differ from it by a constant and cancel less.
    variance = weights.mul_(scores).sum(-1) / total - mean.square()
    return picked - total.log(), guess == labels, mean - total.log(), variance.clamp(min=0).sqrt()


def sequence_logprobs(logprobs: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Sum the answer's log-probabilities for each row.

    Args:
        logprobs: ``(B, T)`` token log-probabilities.
        mask: ``(B, T)`` True at labelled tokens.

    Returns:
        S ``(B,)``, the sum over labelled tokens in nats, and n ``(B,)``, how many there are.
    """
    return (logprobs * mask).sum(-1), mask.sum(-1)
