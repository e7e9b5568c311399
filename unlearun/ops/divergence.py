"""Divergences between two models' next-token distributions.

Shapes: N labelled tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from unlearun.ops.logprobs import logsumexp, split_tokens


def token_kl(reference_logits: Tensor | Iterable[Tensor], logits: Tensor, consume: bool = False) -> Tensor:
    """Compute KL(ref ‖ π) at each token, in at least fp32 and a few tokens at a time.

    Nothing of the size of the logits is kept for the backward pass but their gradient.

    Args:
        reference_logits: ``(N, V)`` scores of the frozen reference, whole or in pieces of some tokens that are made as
            they are asked for; they get no gradient; -inf forbids a token.
        logits: ``(N, V)`` scores of the model in training, likewise.
        consume: Whether the gradient may be written over the logits. For whom nothing else reads them; the graph then
            serves one backward pass.

    Returns:
        ``(N,)`` divergences in nats, never negative but for rounding; infinite where π forbids what ref does not.

    >>> token_kl(torch.zeros(1, 3), torch.zeros(1, 3))
    tensor([0.])
    """
    found: Tensor = _TokenKL.apply(reference_logits, logits, consume, False)[0]  # type: ignore[no-untyped-call]
    return found


def token_kl_and_entropy(
    teacher_logits: Tensor | Iterable[Tensor], logits: Tensor, consume: bool = False
) -> tuple[Tensor, Tensor]:
    """Compute KL(teacher ‖ π) at each token, and what makes a cross-entropy of it.

    Args:
        teacher_logits: See `token_kl`.
        logits: See `token_kl`.
        consume: See `token_kl`.

    Returns:
        The divergences ``(N,)`` and the teacher's entropies ``(N,)``, which get no gradient, in nats. Their sum is
        CE(π, teacher) = -Σ_v teacher_v log π_v.

    >>> token_kl_and_entropy(torch.tensor([[0.0, 0.0, -torch.inf]]), torch.zeros(1, 3))[1].exp()
    tensor([2.])
    """
    found: tuple[Tensor, Tensor] = _TokenKL.apply(teacher_logits, logits, consume, True)  # type: ignore[no-untyped-call]
    return found


class _TokenKL(Function):
    """Its gradient, softmax(π) minus softmax(ref), is at hand once it is computed, so no logits need wait."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        reference: Tensor | Iterable[Tensor],
        logits: Tensor,
        consume: bool,
        entropy: bool,
    ) -> tuple[Tensor, Tensor]:
        wanted, parts, at = ctx.needs_input_grad[1], [logits.new_zeros(2, 0)], 0
        # In half precision it would underflow before the scale of the loss comes in.
        dtype = torch.float32 if logits.dtype == torch.float16 else logits.dtype
        consume = consume and dtype == logits.dtype
        result = logits if consume else torch.empty_like(logits, dtype=dtype) if wanted else None
        for theirs in (reference,) if isinstance(reference, Tensor) else reference:
            there = slice(at, at := at + len(theirs))
            into = result[there] if result is not None and wanted else None
            parts.append(_compare(theirs, logits[there], into, entropy))
        if wanted:
            ctx.save_for_backward(result)
        ctx.consume, ctx.consumed, ctx.dtype = consume, False, logits.dtype
        divergences, entropies = torch.cat(parts[1:] or parts, dim=-1)
        ctx.mark_non_differentiable(entropies)
        return divergences, entropies

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _entropy: Tensor) -> tuple[None, Tensor, None, None]:  # noqa: ANN401
        if ctx.consumed:
            raise RuntimeError("a second backward pass through divergences whose logits the first one has consumed")
        ctx.consumed = ctx.consume
        (difference,) = ctx.saved_tensors
        weight = gradient.unsqueeze(-1).to(difference.dtype)
        found = difference.mul_(weight) if ctx.consume else (difference * weight).to(ctx.dtype)
        return None, found, None, None


def _compare(reference: Tensor, logits: Tensor, difference: Tensor | None, entropy: bool) -> Tensor:
    """Return divergences and entropies ``(2, n)`` of some tokens, and write softmax(π) minus softmax(ref) if wanted.

    Entropies that nobody wants are 0.
    """
    columns = [reference, logits, *(total.unsqueeze(-1) for total in (logsumexp(reference), logsumexp(logits)))]
    parts = []
    written = [] if difference is None else [difference]
    for theirs, ours, their_sum, our_sum, *into in split_tokens(*columns, *written):
        expected, found = theirs - their_sum, ours - our_sum
        weights = expected.exp()
        # A weight of 0 has no part in the sum, whatever it is multiplied with.
        never = weights == 0
        spread = -(expected.masked_fill(never, 0) * weights).sum(-1) if entropy else weights.new_zeros(len(weights))
        parts.append(torch.stack([expected.sub_(found).masked_fill_(never, 0).mul_(weights).sum(-1), spread]))
        if into:
            into[0].copy_(found.exp_().sub_(weights))
    return torch.cat(parts, dim=-1)
