"""The gradient of a token embedding that is also the head.

Shapes: V vocabulary, D width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, distributed, nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@contextmanager
def only_seen_tokens(model: PreTrainedModel) -> Iterator[None]:
    """Let the embedding of a forward pass, if it is tied to the head, add the rows of the tokens that it saw alone.

    Its gradient would be a second ``(V, D)`` matrix, zeros but for a few hundred rows, beside that of the head. As rows
    it is added to the head's, so the weight's gradient is dense all the same: for forwards whose head runs only.

    Args:
        model: A causal LM of transformers.
    """
    embedding: Any = model.get_input_embeddings()
    if not _is_plain_and_tied(model, embedding):
        yield
        return
    before, embedding.sparse = embedding.sparse, True
    try:
        yield
    finally:
        embedding.sparse = before


def _is_plain_and_tied(model: PreTrainedModel, embedding: Any) -> bool:  # noqa: ANN401 - whatever the model has there
    """Say whether autograd alone sees the gradient: processes that exchange it want it dense."""
    head: Any = model.get_output_embeddings()
    return (
        torch.is_grad_enabled()
        and isinstance(embedding, nn.Embedding)
        and getattr(head, "weight", None) is embedding.weight
        and embedding.weight.requires_grad
        and type(embedding.weight.data) is Tensor
        and not (distributed.is_available() and distributed.is_initialized())
    )
