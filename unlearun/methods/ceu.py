"""CE-U: the model learns from itself as it is, the answer's tokens ruled out.

Shapes: B rows, T tokens, N labelled tokens of the batch, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from unlearun.data import Batch
from unlearun.methods.base import UnlearningMethod
from unlearun.methods.training import Term
from unlearun.ops import split_tokens, token_kl_and_entropy


def without_labels(logits: Tensor, labels: Tensor) -> Iterator[Tensor]:
    """Yield the teacher's scores: the model's own, with each token's label forbidden.

    Args:
        logits: ``(N, V)`` scores; they are read as they are asked for, and get no gradient.
        labels: ``(N,)`` token ids.

    Yields:
        The same, in pieces of some tokens.

    Source: Yang 2025 (2503.01224), the target distribution.
    """
    for scores, label in split_tokens(logits.detach(), labels.unsqueeze(-1)):
        yield scores.scatter(-1, label, -torch.inf)


class CEU(UnlearningMethod):
    """Cross-entropy unlearning: cross-entropy with the model's own distribution, the right token taken out.

    The gradient of a token's score is its probability, so it fades by itself. The first token of each answer is left
    alone, as the authors do, unless it is the only one. They use no retain loss (alpha 0); here it is on, as in all
    methods.
    Source: Yang 2025, "CE-U: Cross Entropy Unlearning" (2503.01224).
    """

    def forget_loss(self, batch: Batch) -> Term:
        """Return the mean cross-entropy over all tokens but the first of each answer."""
        logits = self.policy(batch, "logits")
        teacher = without_labels(logits, batch.labels[batch.mask])
        divergence, entropy = token_kl_and_entropy(teacher, logits, consume=True)
        return Term(((divergence + entropy) * batch.inner_mask[batch.mask]).sum(), batch.inner_count)
