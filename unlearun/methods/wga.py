"""WGA: gradient ascent that lets go of tokens which are unlikely already.

Shapes: B rows, T tokens.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from unlearun.data import Batch
from unlearun.errors import check_bounds
from unlearun.methods.base import UnlearningMethod
from unlearun.methods.training import Term
from unlearun.models import ModelLike


def wga_loss(logprobs: Tensor, mask: Tensor, beta: float) -> Tensor:
    """Sum p^β lp over the answers, where p = exp(lp) only weighs and gets no gradient.

    Args:
        logprobs: ``(B, T)`` log-probabilities of the labels, in nats.
        mask: ``(B, T)`` True at labelled tokens.
        beta: How strongly likely tokens count more, from 0; 0 is gradient ascent.

    Returns:
        A scalar, never above 0.

    Source: Wang 2025 (2502.19301), weighted gradient ascent.
    """
    weights = (beta * logprobs.detach()).exp()
    return (weights * logprobs * mask).sum()


class WGA(UnlearningMethod):
    """Weighted gradient ascent: tokens are pushed down as long as they are likely, and left alone afterwards.

    Source: Wang 2025, "Rethinking LLM Unlearning Objectives: A Gradient Perspective and Go Beyond" (2502.19301).

    Args:
        model: A hub id, a folder, a GGUF file, ``pocket`` (ships with the package), or a model object.
        beta: Exponent of the probability that weighs a token; higher stops sooner.
        kwargs: See `UnlearningMethod`.
    """

    def __init__(self, model: ModelLike, beta: float = 1.0, **kwargs: Any) -> None:
        check_bounds(beta=(beta, 0.0))
        super().__init__(model, **kwargs)
        self.beta = beta

    def forget_loss(self, batch: Batch) -> Term:
        """Return the token mean of the weighted log-probability."""
        return Term(wga_loss(self.policy(batch, "logprobs"), batch.mask, self.beta), batch.token_count)
