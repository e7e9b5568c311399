"""What the model would say if it stopped at a layer: the logit lens.

Shapes: B rows, T tokens, L layers, D width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from unlearun.data import Batch
from unlearun.errors import UnlearunError
from unlearun.models.layers import find_layers
from unlearun.models.policy import Policy
from unlearun.ops import token_logprobs

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# What architectures call the norm between the last layer and the head.
FINAL_NORMS = ("norm", "ln_f", "final_layernorm", "final_layer_norm", "norm_f", "ln_out")


def find_final_norm(model: PreTrainedModel) -> nn.Module:
    """Return the norm between the last decoder layer and the head.

    Args:
        model: A causal LM of transformers.

    Raises:
        UnlearunError: It has none of the known names.
    """
    modules = dict(find_layers(model).parent.named_children())
    for name in FINAL_NORMS:
        if name in modules:
            return modules[name]
    raise UnlearunError(f"{type(model).__name__}: no final norm found; looked for {', '.join(FINAL_NORMS)}")


@torch.no_grad()
def lens_logprobs(policy: Policy, batch: Batch) -> Tensor:
    """Read the answers at every layer, through the final norm and the head.

    Args:
        policy: The model, in eval mode.
        batch: Rows with labels.

    Returns:
        ``(L, B)``: the mean log-probability of each row's labels, in nats, as read at each layer; the last layer's is
        the model's own.

    Raises:
        UnlearunError: The last layer's are not the model's own, so the architecture does more at its end than a norm.

    Source: nostalgebraist 2020, "interpreting GPT: the logit lens".
    """
    norm, mask = find_final_norm(policy.model), batch.mask
    layers = range(len(find_layers(policy.model).layers))
    predicts = mask.roll(-1, dims=-1)
    labels, counts = batch.labels[mask], mask.sum(-1).clamp(min=1)
    found = []
    for states in policy(batch, "hidden", list(layers)):
        logprobs = token_logprobs(policy.head(norm(states[predicts])).float(), labels)
        rows = torch.zeros(mask.shape, dtype=logprobs.dtype, device=mask.device).masked_scatter(mask, logprobs)
        found.append(rows.sum(-1) / counts)
    own = policy(batch, "logprobs").sum(-1) / counts
    # a broken model has scores that are no numbers, and is measured all the same
    if not torch.allclose(found[-1], own.to(found[-1].dtype), rtol=0.02, atol=0.05, equal_nan=True):
        raise UnlearunError(
            f"{type(policy.model).__name__} does more behind its last layer than a norm and the head, so no layer can "
            "be read through them"
        )
    return torch.stack(found)


@torch.no_grad()
def mean_states(policy: Policy, batch: Batch) -> Tensor:
    """Return what each layer puts out at the answers, averaged over their tokens: ``(L, B, D)``, float32.

    Args:
        policy: The model, in eval mode.
        batch: Rows with labels.
    """
    layers, mask = range(len(find_layers(policy.model).layers)), batch.mask.unsqueeze(-1)
    counts = mask.sum(1).clamp(min=1)
    return torch.stack([(states.float() * mask).sum(1) / counts for states in policy(batch, "hidden", list(layers))])
