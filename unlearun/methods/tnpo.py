"""TNPO: negative preference optimization of each token by itself.

Shapes: B rows, T tokens.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn.functional import logsigmoid

from unlearun.data import Batch
from unlearun.errors import check_bounds
from unlearun.methods.base import UnlearningMethod
from unlearun.methods.referenced import NeedOf
from unlearun.methods.training import Term
from unlearun.models import ModelLike


def tnpo_loss(gains: Tensor, mask: Tensor, beta: float) -> Tensor:
    """Sum -(2/β) log σ(-β gain) over the tokens.

    Args:
        gains: ``(B, T)`` lp - lp_ref of the labels, in nats.
        mask: ``(B, T)`` True at labelled tokens.
        beta: Inverse temperature, above 0.

    Returns:
        A scalar, never below 0; (2/β) log 2 a token at the start.

    Source: Wang 2025 (2502.19301), token-wise NPO.
    """
    return (-2 / beta * logsigmoid(-beta * gains) * mask).sum()


def tnpo_weight(gains: Tensor, mask: Tensor, beta: float) -> Tensor:
    """Sum over the tokens the weight 2 σ(β gain) that the gradient of lp has in that of the loss.

    Args:
        gains: ``(B, T)`` lp - lp_ref of the labels, in nats.
        mask: ``(B, T)`` True at labelled tokens.
        beta: Inverse temperature, above 0.

    Returns:
        A scalar: 1 a token at the start, and towards 0 as the loss saturates.
    """
    return (2 * (beta * gains).sigmoid() * mask).sum()


class TNPO(UnlearningMethod):
    """Pushes each token of a forget answer below its log-probability at the start, ever more gently.

    As NPO, but a long answer does not saturate at once, for every token is compared by itself. ``train/weight`` is the
    mean push: 1 at the start, near 0 once nothing more is taught.
    Source: Wang 2025, "Rethinking LLM Unlearning Objectives: A Gradient Perspective and Go Beyond" (2502.19301).

    Args:
        model: A hub id, a folder, a GGUF file, ``pocket`` (ships with the package), or a model object.
        beta: Inverse temperature; lower pushes further, towards gradient ascent.
        kwargs: See `UnlearningMethod`.
    """

    def __init__(self, model: ModelLike, beta: float = 1.0, **kwargs: Any) -> None:
        check_bounds(beta=(beta, 1e-6))
        super().__init__(model, **kwargs)
        self.beta = beta

    @property
    def reference_needs(self) -> frozenset[NeedOf]:
        """The forget loss reads the log-probability of each token."""
        return super().reference_needs | {("token_logprobs", "forget")}

    def forget_loss(self, batch: Batch) -> Term:
        """Return the token mean of the TNPO loss."""
        gains = self.policy(batch, "logprobs") - self.reference.token_logprobs(batch)
        self.record("weight", Term(tnpo_weight(gains, batch.mask, self.beta), batch.token_count).mean())
        return Term(tnpo_loss(gains, batch.mask, self.beta), batch.token_count)
