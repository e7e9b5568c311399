"""Gradient ascent: undo the learning of the forget answers.

Shapes: B rows, T tokens.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from unlearun.data import Batch
from unlearun.methods.base import UnlearningMethod
from unlearun.methods.training import Term
from unlearun.models import ModelLike


def grad_ascent_loss(logprobs: Tensor, mask: Tensor) -> Tensor:
    """Sum the log-probabilities of the answers, so that descent lowers them.

    Args:
        logprobs: ``(B, T)`` log-probabilities of the labels, in nats.
        mask: ``(B, T)`` True at labelled tokens.

    Returns:
        A scalar, never above 0.

    Source: Jang 2022 (2210.01504), equation 2, as a token mean.
    """
    return (logprobs * mask).sum()


class GradAscent(UnlearningMethod):
    """Gradient ascent on the forget answers, with nothing to hold the rest: few steps only, or all is lost.

    Source: Jang 2022, "Knowledge Unlearning for Mitigating Privacy Risks in Language Models" (2210.01504).

    Args:
        model: A hub id, a folder, a GGUF file, ``pocket`` (ships with the package), or a model object.
        gamma: Weight of the forget loss.
        kwargs: See `UnlearningMethod`.
    """

    has_retain_term: ClassVar[bool] = False
    fixed: ClassVar[tuple[str, ...]] = ("alpha", "retain_loss_type")

    def __init__(self, model: ModelLike, gamma: float = 1.0, **kwargs: Any) -> None:
        self.refuse_fixed(kwargs)
        super().__init__(model, gamma=gamma, alpha=0.0, retain_loss_type="NLL", **kwargs)

    def forget_loss(self, batch: Batch) -> Term:
        """Return the token mean of the log-probability."""
        return Term(grad_ascent_loss(self.policy(batch, "logprobs"), batch.mask), batch.token_count)
