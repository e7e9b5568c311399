"""SimNPO: negative preference optimization without a reference, normalised by length.

Shapes: B rows, T tokens.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn.functional import logsigmoid

from unlearun.data import Batch
from unlearun.errors import check_bounds
from unlearun.methods.base import UnlearningMethod
from unlearun.methods.training import Term
from unlearun.models import ModelLike
from unlearun.ops import sequence_logprobs


def simnpo_loss(logprobs: Tensor, mask: Tensor, beta: float, delta: float) -> Tensor:
    """Sum -(2/β) log σ(β (-S/n - δ)) over the rows.

    Args:
        logprobs: ``(B, T)`` log-probabilities of the labels, in nats.
        mask: ``(B, T)`` True at labelled tokens; a row without any counts for nothing.
        beta: Inverse temperature, above 0.
        delta: Margin, in nats a token.

    Returns:
        A scalar, never below 0.

    Source: Fan 2024 (2410.07163), equation 4, with δ inside β as in the authors' code: the paper's γ is βδ.
    """
    total, count = sequence_logprobs(logprobs, mask)
    losses = -2 / beta * logsigmoid(beta * (-total / count.clamp(min=1) - delta))
    return (losses * (count > 0)).sum()


class SimNPO(UnlearningMethod):
    """Pushes the mean log-probability of a forget answer down until it is low enough; needs no reference.

    Source: Fan 2024, "Simplicity Prevails: Rethinking Negative Preference Optimization for LLM Unlearning"
    (2410.07163); beta, gamma and delta are the authors' for TOFU forget10.

    Args:
        model: A hub id, a folder, a GGUF file, ``pocket`` (ships with the package), or a model object.
        beta: Inverse temperature; higher stops sooner once an answer is unlikely.
        delta: Margin in nats a token; higher pushes further.
        gamma: Weight of the forget loss.
        kwargs: See `UnlearningMethod`.
    """

    def __init__(
        self, model: ModelLike, beta: float = 4.5, delta: float = 0.0, gamma: float = 0.125, **kwargs: Any
    ) -> None:
        check_bounds(beta=(beta, 1e-6), delta=(delta, 0.0))
        super().__init__(model, gamma=gamma, **kwargs)
        self.beta = beta
        self.delta = delta

    def forget_loss(self, batch: Batch) -> Term:
        """Return the row mean of the SimNPO loss."""
        logprobs = self.policy(batch, "logprobs")
        return Term(simnpo_loss(logprobs, batch.mask, self.beta, self.delta), batch.row_count)
