"""DPO: prefer another answer to the one to be forgotten.

Shapes: B rows, T tokens.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor
from torch.nn.functional import logsigmoid

from unlearun.data import AlternateKind, Batch
from unlearun.errors import UnlearunError, check_bounds
from unlearun.methods.base import UnlearningMethod
from unlearun.methods.referenced import NeedOf
from unlearun.methods.training import Term
from unlearun.models import ModelLike


def dpo_loss(alternate_gain: Tensor, original_gain: Tensor, counts: Tensor, beta: float) -> Tensor:
    """Sum -(2/β) log σ(β (alternate gain - original gain)) over the rows.

    Args:
        alternate_gain: ``(B,)`` S - S_ref of the alternate answers, in nats.
        original_gain: ``(B,)`` S - S_ref of the answers to forget.
        counts: ``(B,)`` labelled tokens of each row; a row without any counts for nothing.
        beta: Inverse temperature, above 0.

    Returns:
        A scalar, never below 0; (2/β) log 2 a row at the start.

    Source: Rafailov 2023 (2305.18290), equation 7; Zhang 2024 (2404.05868) for the factor 2/β.
    """
    losses = -2 / beta * logsigmoid(beta * (alternate_gain - original_gain))
    return (losses * (counts > 0)).sum()


class DPO(UnlearningMethod):
    """Direct preference optimization: the alternate answer (a refusal, unless rows have one) over the original.

    Source: Rafailov 2023, "Direct Preference Optimization" (2305.18290), as Zhang 2024 (2404.05868) uses it to
    forget.

    Args:
        model: A hub id, a folder, a GGUF file, ``pocket`` (ships with the package), or a model object.
        beta: Inverse temperature; lower lets the model move further from the reference.
        kwargs: See `UnlearningMethod`.
    """

    alternate: ClassVar[AlternateKind | None] = "any"

    def __init__(self, model: ModelLike, beta: float = 0.1, **kwargs: Any) -> None:
        check_bounds(beta=(beta, 1e-6))
        super().__init__(model, **kwargs)
        self.beta = beta

    @property
    def reference_needs(self) -> frozenset[NeedOf]:
        """The forget loss reads the log-probabilities of both answers."""
        return super().reference_needs | {("logprobs", "forget")}

    def forget_loss(self, batch: Batch) -> Term:
        """Return the row mean of the DPO loss."""
        if batch.alternate is None:
            raise UnlearunError(f"{type(self).__name__} needs alternate answers: a Batch with `alternate`")
        loss = dpo_loss(self.gain(batch.alternate), self.gain(batch), batch.mask.sum(-1), self.beta)
        return Term(loss, batch.row_count)
