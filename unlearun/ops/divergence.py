"""Divergences between two models' next-token distributions.

Shapes: N labelled tokens, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor


def token_kl(reference_logits: Tensor, logits: Tensor) -> Tensor:
    """Compute KL(ref ‖ π) at each token, in at least fp32.

    Args:
        reference_logits: ``(N, V)`` scores of the frozen reference.
        logits: ``(N, V)`` scores of the model in training.

    Returns:
        ``(N,)`` divergences in nats, never negative but for rounding.

    >>> token_kl(torch.zeros(1, 3), torch.zeros(1, 3))
    tensor([0.])
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    reference = reference_logits.to(dtype).log_softmax(-1)
    return (reference.exp() * (reference - logits.to(dtype).log_softmax(-1))).sum(-1)
