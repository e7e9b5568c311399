"""IdkNLL and IdkDPO: answer questions of the forget set with "I don't know".

Shapes: B rows, T tokens.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from unlearun.data import AlternateKind, Batch
from unlearun.errors import UnlearunError
from unlearun.methods.base import UnlearningMethod
from unlearun.methods.dpo import DPO
from unlearun.methods.training import Term


def refusal_loss(logprobs: Tensor, mask: Tensor) -> Tensor:
    """Sum -lp over the refusals.

    Args:
        logprobs: ``(B, T)`` log-probabilities of the refusals' tokens, in nats.
        mask: ``(B, T)`` True at labelled tokens.

    Returns:
        A scalar, never below 0.

    Source: Maini 2024 (2401.06121), there called preference optimization.
    """
    return -(logprobs * mask).sum()


class IdkNLL(UnlearningMethod):
    """Learns refusals to the questions of the forget set, which hides what it knew more than it removes it.

    Which refusal a row has follows from the seed and the row.
    Source: Maini 2024, "TOFU: A Task of Fictitious Unlearning for LLMs" (2401.06121), there called preference
    optimization.
    """

    alternate: ClassVar[AlternateKind | None] = "refusal"
    cost: ClassVar[str] = "refusals + retain"

    def forget_loss(self, batch: Batch) -> Term:
        """Return the token mean of the refusals' negative log-likelihood."""
        if batch.alternate is None:
            raise UnlearunError("IdkNLL needs refusals: a Batch with `alternate`")
        refusals = batch.alternate
        return Term(refusal_loss(self.policy(refusals, "logprobs"), refusals.mask), refusals.token_count)


class IdkDPO(DPO):
    """Prefers a refusal to the answer, whatever other answers the rows have.

    Which refusal a row has follows from the seed and the row.
    Source: Zhang 2024, "Negative Preference Optimization: From Catastrophic Collapse to Effective Unlearning"
    (2404.05868), where it is a baseline; Rafailov 2023 (2305.18290).
    """

    alternate: ClassVar[AlternateKind | None] = "refusal"
