"""Divergences between two models' next-token distributions.

Shapes: N labelled tokens, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from unlearun.ops.logprobs import logsumexp, split


def token_kl(reference_logits: Tensor, logits: Tensor) -> Tensor:
    """Compute KL(ref ‖ π) at each token, in at least fp32 and a few tokens at a time.

    Args:
        reference_logits: ``(N, V)`` scores of the frozen reference, which get no gradient; -inf forbids a token.
        logits: ``(N, V)`` scores of the model in training, likewise.

    Returns:
        ``(N,)`` divergences in nats, never negative but for rounding; infinite where π forbids what ref does not.

    >>> token_kl(torch.zeros(1, 3), torch.zeros(1, 3))
    tensor([0.])
    """
    found: Tensor = _TokenKL.apply(reference_logits, logits)  # type: ignore[no-untyped-call]
    return found


class _TokenKL(Function):
    """Its gradient is softmax(π) minus softmax(ref), so nothing of the size of the logits need be kept but them."""

    @staticmethod
    def forward(ctx: Any, reference: Tensor, logits: Tensor) -> Tensor:  # noqa: ANN401
        totals = logsumexp(reference), logsumexp(logits)
        ctx.save_for_backward(reference, logits, *totals)
        parts = []
        for theirs, ours, *sums in split(reference, logits, *(total.unsqueeze(-1) for total in totals)):
            expected, found = theirs - sums[0], ours - sums[1]
            weights = expected.exp()
            # A weight of 0 has no part in the sum, whatever it is multiplied with.
            parts.append(expected.sub_(found).masked_fill_(weights == 0, 0).mul_(weights).sum(-1))
        return torch.cat(parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:  # noqa: ANN401
        reference, logits, *totals = ctx.saved_tensors
        result = torch.empty_like(logits)
        columns = (column.unsqueeze(-1) for column in (*totals, gradient))
        for into, theirs, ours, their_sum, our_sum, weight in split(result, reference, logits, *columns):
            difference = (ours - our_sum).exp_().sub_((theirs - their_sum).exp_())
            into.copy_(difference.mul_(weight))
        return None, result
