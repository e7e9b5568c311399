"""UNDIAL: the model learns from itself as it was, its scores of the answer's tokens lowered.

Shapes: N labelled tokens of the batch, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from unlearun.data import Batch
from unlearun.errors import check_bounds
from unlearun.methods.base import UnlearningMethod
from unlearun.methods.referenced import NeedOf
from unlearun.methods.training import Term
from unlearun.models import ModelLike
from unlearun.ops import split_tokens, token_kl_and_entropy


def lowered(pieces: Iterable[Tensor], labels: Tensor, beta: float) -> Iterator[Tensor]:
    """Yield the teacher's scores: the reference's, less by β at each token's label.

    Args:
        pieces: The scores ``(N, V)`` of the reference, in pieces of some tokens.
        labels: ``(N,)`` token ids.
        beta: By how much, in units of a score.

    Yields:
        The same, in pieces of some tokens, in at least fp32.

    Source: Dong 2024 (2402.10052), the adjusted logits.
    """
    at = 0
    for piece in pieces:
        for scores, label in split_tokens(piece, labels[at : at + len(piece)].unsqueeze(-1)):
            changed = scores.to(torch.promote_types(scores.dtype, torch.float32), copy=True)
            yield changed.scatter_add_(-1, label, torch.full_like(label, -beta, dtype=changed.dtype))
        at += len(piece)


class UNDIAL(UnlearningMethod):
    """Self-distillation with adjusted logits: cross-entropy with the start whose answer tokens score β less.

    The target has an end, so the model cannot fall apart however long it trains. ``train/divergence`` is the loss less
    the teacher's entropy: 0 once the model is the teacher.
    Source: Dong 2024, "UNDIAL: Self-Distillation with Adjusted Logits for Robust Unlearning in Large Language Models"
    (2402.10052). The authors use no retain loss (alpha 0); here it is on, as in all methods.

    Args:
        model: A hub id, a folder, a GGUF file, ``pocket`` (ships with the package), or a model object.
        beta: By how much the score of an answer's token is lowered; 10 makes it e^10 times less likely to others.
        kwargs: See `UnlearningMethod`.
    """

    def __init__(self, model: ModelLike, beta: float = 10.0, **kwargs: Any) -> None:
        check_bounds(beta=(beta, 0.0))
        super().__init__(model, **kwargs)
        self.beta = beta

    @property
    def reference_needs(self) -> frozenset[NeedOf]:
        """The forget loss reads the distribution at each token."""
        return super().reference_needs | {("logits", "forget")}

    def forget_loss(self, batch: Batch) -> Term:
        """Return the token mean of the cross-entropy with the teacher."""
        teacher = lowered(self.reference.logit_pieces(batch), batch.labels[batch.mask], self.beta)
        divergence, entropy = token_kl_and_entropy(teacher, self.policy(batch, "logits"), consume=True)
        self.record("divergence", Term(divergence.sum(), batch.token_count).mean())
        return Term((divergence + entropy).sum(), batch.token_count)
