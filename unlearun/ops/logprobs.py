"""Log-probabilities of labelled tokens.

Shapes: B rows, T tokens, N labelled tokens, V vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

IGNORED = -100


class TokenStats(NamedTuple):
    """What is kept of the logits of a batch.

    Attributes:
        logprobs: ``(B, T)`` log-probability of each label, in nats, 0 where there is no label.
        hits: ``(B, T)`` whether the likeliest token is the label, False where there is no label.
    """

    logprobs: Tensor
    hits: Tensor


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


def token_stats(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Reduce logits to what metrics read.

    Args:
        logits: ``(N, V)`` scores at the positions that predict the labels.
        labels: ``(N,)`` token ids, none of them -100.

    Returns:
        Log-probabilities ``(N,)`` in nats, and whether the argmax hits the label ``(N,)``.
    """
    return token_logprobs(logits, labels), logits.argmax(-1) == labels


def sequence_logprobs(logprobs: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Sum the answer's log-probabilities for each row.

    Args:
        logprobs: ``(B, T)`` token log-probabilities.
        mask: ``(B, T)`` True at labelled tokens.

    Returns:
        S ``(B,)``, the sum over labelled tokens in nats, and n ``(B,)``, how many there are.
    """
    return (logprobs * mask).sum(-1), mask.sum(-1)
