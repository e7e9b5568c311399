"""Gradient difference: ascend on forget, descend on retain."""

from __future__ import annotations

from unlearun.data import Batch
from unlearun.methods.base import UnlearningMethod
from unlearun.methods.grad_ascent import grad_ascent_loss
from unlearun.methods.training import Term


class GradDiff(UnlearningMethod):
    """Gradient ascent on the forget answers while the retain answers are held by NLL or KL.

    The forget loss has no floor: with many epochs lower gamma, or raise alpha.
    Source: Liu 2022, "Continual Learning and Private Unlearning" (2203.12817); Maini 2024 (2401.06121), section 3.
    """

    def forget_loss(self, batch: Batch) -> Term:
        """Return the token mean of the log-probability."""
        return Term(grad_ascent_loss(self.policy(batch, "logprobs"), batch.mask), batch.token_count)
