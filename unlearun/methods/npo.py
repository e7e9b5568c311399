"""NPO: negative preference optimization, gradient ascent that fades as an answer falls below its start.

Shapes: B rows.
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


def npo_loss(gain: Tensor, counts: Tensor, beta: float) -> Tensor:
    """Sum -(2/β) log σ(-β gain) over the rows.

    Args:
        gain: ``(B,)`` S - S_ref of the answers to forget, in nats; divided by n in the length-normalised form.
        counts: ``(B,)`` labelled tokens of each row; a row without any counts for nothing.
        beta: Inverse temperature, above 0.

    Returns:
        A scalar, never below 0; (2/β) log 2 a row at the start.

    Source: Zhang 2024 (2404.05868), equation 3.
    """
    losses = -2 / beta * logsigmoid(-beta * gain)
    return (losses * (counts > 0)).sum()


def npo_weight(gain: Tensor, counts: Tensor, beta: float) -> Tensor:
    """Sum over the rows the weight 2 σ(β gain) that the gradient of S has in that of the loss.

    Args:
        gain: ``(B,)`` S - S_ref of the answers to forget, in nats.
        counts: ``(B,)`` labelled tokens of each row; a row without any counts for nothing.
        beta: Inverse temperature, above 0.

    Returns:
        A scalar: 1 a row at the start, as in gradient ascent, and towards 0 as the loss saturates.

    Source: Zhang 2024 (2404.05868), equation 4.
    """
    return (2 * (beta * gain).sigmoid() * (counts > 0)).sum()


class NPO(UnlearningMethod):
    """Pushes each forget answer below its log-probability at the start, ever more gently the further it is.

    ``train/weight`` is the mean push: 1 at the start, near 0 once the loss is saturated and teaches no more. Long
    answers saturate within a few steps, for their log-probabilities are summed: lower beta for them, or compare means
    a token with ``length_normalized``, whose beta is about as many times larger as an answer has tokens.
    Source: Zhang 2024, "Negative Preference Optimization: From Catastrophic Collapse to Effective Unlearning"
    (2404.05868).

    Args:
        model: A hub id, a folder, a GGUF file, ``pocket`` (ships with the package), or a model object.
        beta: Inverse temperature; lower pushes further, towards gradient ascent.
        length_normalized: Whether S - S_ref is divided by n, the number of labelled tokens, so that answers of any
            length saturate alike. Not in the paper; SimNPO does so (2410.07163).
        kwargs: See `UnlearningMethod`.
    """

    def __init__(self, model: ModelLike, beta: float = 0.1, length_normalized: bool = False, **kwargs: Any) -> None:
        check_bounds(beta=(beta, 1e-6))
        super().__init__(model, **kwargs)
        self.beta = beta
        self.length_normalized = length_normalized

    @property
    def reference_needs(self) -> frozenset[NeedOf]:
        """The forget loss reads the log-probability of each answer."""
        return super().reference_needs | {("logprobs", "forget")}

    def forget_loss(self, batch: Batch) -> Term:
        """Return the row mean of the NPO loss."""
        gain, counts = self.gain(batch), batch.mask.sum(-1)
        if self.length_normalized:
            gain = gain / counts.clamp(min=1)
        self.record("weight", Term(npo_weight(gain, counts, self.beta), batch.row_count).mean())
        return Term(npo_loss(gain, counts, self.beta), batch.row_count)
