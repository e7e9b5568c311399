"""Log-probabilities of labelled tokens.

Shapes: B rows, T tokens, N labelled tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

IGNORED = -100
STATS_TOKENS = 32  # reduced at a time: for 50k words their temporaries just fit a CPU's cache, and more are slower
DEVICE_TOKENS = 1024  # on a GPU, where it is launches that cost


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


def token_logprobs(logits: Tensor, labels: Tensor, consume: bool = False) -> Tensor:
    """Compute the log-probability of each label, in at least fp32.

    Nothing as large as the logits is made in the forward pass, and in the backward pass their gradient alone.

    Args:
        logits: ``(N, V)`` scores at the positions that predict the labels.
        labels: ``(N,)`` token ids, none of them -100.
        consume: Whether the backward pass may write the gradient over the logits. For whom nothing else reads them;
            the graph then serves one backward pass.

    Returns:
        ``(N,)`` log-probabilities in nats.

    >>> token_logprobs(torch.zeros(1, 4), torch.tensor([2])).exp()
    tensor([0.2500])
    """
    found: Tensor = _TokenLogprobs.apply(logits, labels, consume)  # type: ignore[no-untyped-call]
    return found


class _TokenLogprobs(Function):
    """Its gradient is one-hot minus softmax, so the logits and their log-sum-exp are all that must be kept."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, consume: bool) -> Tensor:  # noqa: ANN401
        total = logsumexp(logits)
        ctx.save_for_backward(logits, labels, total)
        ctx.consume, ctx.consumed = consume, False
        return logits.gather(-1, labels.unsqueeze(-1)).squeeze(-1).to(total.dtype) - total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        if ctx.consumed:
            raise RuntimeError(
                "a second backward pass through the same log-probabilities, whose logits the first one has consumed; "
                "run the policy again, or take its logits and token_logprobs(logits, labels)"
            )
        ctx.consumed = ctx.consume
        logits, labels, total = ctx.saved_tensors
        result = logits if ctx.consume else torch.empty_like(logits)
        columns = (one.unsqueeze(-1) for one in (labels, total, gradient))
        for into, *some in split_tokens(result, logits, *columns):
            scores, label, whole, weight = some
            softmax = torch.sub(scores, whole, out=into if into.dtype == whole.dtype else None).exp_()
            into.copy_(softmax.mul_(-weight).scatter_add_(-1, label, weight))
        return result, None, None


def logsumexp(logits: Tensor) -> Tensor:
    """Compute the log-sum-exp of scores in at least fp32, a few tokens at a time.

    Args:
        logits: ``(N, V)``.

    Returns:
        ``(N,)``.
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return torch.cat([chunk.to(dtype).logsumexp(-1) for (chunk,) in split_tokens(logits)])


def split_tokens(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield views of a few tokens of tensors ``(N, ...)``, so many that their temporaries stay small."""
    size = STATS_TOKENS if tensors[0].device.type == "cpu" else DEVICE_TOKENS
    return zip(*(tensor.split(size) for tensor in tensors), strict=True)


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
    dtype = torch.promote_types(logits.dtype, torch.float32)
    chunks = list(split_tokens(logits, labels))
    # For all chunks: fresh memory costs more than what is done in it.
    work = torch.empty(2, len(chunks[0][0]), logits.shape[-1], dtype=dtype, device=logits.device)
    with torch.no_grad():
        parts = [_reduce(some, theirs, work) for some, theirs in chunks]
        stats = TokenStats(*map(torch.cat, zip(*parts, strict=True)))
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
