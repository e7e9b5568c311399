"""SatImp: gradient ascent on the tokens that are neither unlearnt yet nor certain.

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


def satimp_loss(logprobs: Tensor, mask: Tensor, beta1: float, beta2: float) -> Tensor:
    """Sum p^β1 (1-p)^β2 lp over the answers, where p = exp(lp) only weighs and gets no gradient.

    Args:
        logprobs: ``(B, T)`` log-probabilities of the labels, in nats.
        mask: ``(B, T)`` True at labelled tokens.
        beta1: Of saturation, from 0: higher leaves unlikely tokens alone sooner.
        beta2: Of importance, from 0: higher spends less on tokens that are nearly certain.

    Returns:
        A scalar, never above 0.

    Source: Yang 2025 (2505.11953), the weights of SatImp.
    """
    logp = logprobs.detach()
    # 1 - p by expm1, which loses nothing where p is near 1.
    weights = (beta1 * logp).exp() * (-logp.expm1()).clamp(min=0) ** beta2
    return (weights * logprobs * mask).sum()


class SatImp(UnlearningMethod):
    """Weighs each token by saturation and importance: most is done between certain and unlikely.

    Source: Yang 2025, "Exploring Criteria of Loss Reweighting to Enhance LLM Unlearning" (2505.11953); beta1, beta2
    and gamma are those of its configuration in OpenUnlearning. The authors' own code prefers a beta2 of 0.1.

    Args:
        model: A hub id, a folder, a GGUF file, ``pocket`` (ships with the package), or a model object.
        beta1: Exponent of the probability of a token.
        beta2: Exponent of what that leaves.
        gamma: Weight of the forget loss.
        kwargs: See `UnlearningMethod`.
    """

    def __init__(
        self, model: ModelLike, beta1: float = 5.0, beta2: float = 1.0, gamma: float = 0.1, **kwargs: Any
    ) -> None:
        check_bounds(beta1=(beta1, 0.0), beta2=(beta2, 0.0))
        super().__init__(model, gamma=gamma, **kwargs)
        self.beta1 = beta1
        self.beta2 = beta2

    def forget_loss(self, batch: Batch) -> Term:
        """Return the token mean of the weighted log-probability."""
        logprobs = self.policy(batch, "logprobs")
        return Term(satimp_loss(logprobs, batch.mask, self.beta1, self.beta2), batch.token_count)
