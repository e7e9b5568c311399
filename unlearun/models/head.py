"""From last hidden states to logits, as each architecture does it.

Shapes: N tokens, V vocabulary, D width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

HEAD_TOKENS = 128  # of which logits exist at a time where no gradient is; more are no faster


def scale_logits(logits: Tensor, config: PretrainedConfig) -> Tensor:
    """Do to logits ``(N, V)`` what an architecture does behind its output embeddings.

    Args:
        logits: Of any shape.
        config: The text model's.
    """
    if (scale := getattr(config, "logit_scale", None)) is not None:  # Cohere
        logits = logits * scale
    if (divisor := getattr(config, "logits_scaling", None)) is not None:  # Granite
        logits = logits / divisor
    if (cap := getattr(config, "final_logit_softcapping", None)) is not None:  # Gemma 2 and 3
        logits = cap * torch.tanh(logits / cap)
    return logits


class FrozenHead(nn.Module):
    """The head of a model as it is now; what of it is not trained is shared with the model.

    Args:
        model: A causal LM of transformers, with a head that `fits`.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        head: Any = model.get_output_embeddings()
        self.config = model.config.get_text_config()
        self.copied = any(weight.requires_grad or hasattr(weight, "full_tensor") for weight in head.parameters())
        for name in ("weight", "bias"):
            kept = getattr(head, name)
            self.register_buffer(name, None if kept is None else self._keep(kept.detach()), persistent=False)

    @staticmethod
    def fits(model: PreTrainedModel) -> bool:
        """Say whether a model's output embeddings are a linear map and no more."""
        return type(model.get_output_embeddings()) is nn.Linear

    @property
    def copied_bytes(self) -> int:
        """How much memory the copy takes; 0 where there is none."""
        return sum(kept.numel() * kept.element_size() for kept in self.buffers()) if self.copied else 0

    def forward(self, states: Tensor) -> Tensor:
        """Map last hidden states ``(N, D)`` to logits ``(N, V)``."""
        return scale_logits(linear(states, self.weight, self.bias), self.config)

    def _keep(self, weight: Any) -> Tensor:  # noqa: ANN401 - a tensor or a shard
        if hasattr(weight, "full_tensor"):  # asked outside of the module that would gather it
            return torch.as_tensor(weight.full_tensor())
        return torch.as_tensor(weight.clone() if self.copied else weight)
