"""How long the gradient of a single example is.

Shapes: B rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unlearun.data import Batch
from unlearun.errors import UnlearunError
from unlearun.models.policy import Policy
from unlearun.models.sharding import is_sharded, length, turns
from unlearun.ops import sequence_logprobs


def gradient_norms(policy: Policy, batch: Batch) -> Tensor:
    """Measure the gradient of each row's loss -S/n over all weights, one row at a time.

    Works inside inference mode, and leaves no gradient behind.

    Args:
        policy: The model; weights that a method has frozen count too. Where it is sharded all processes must ask at
            once, and each takes part in the rows of all, so that more of them are no faster.
        batch: Rows with labels, at least one.

    Returns:
        ``(B,)`` 2-norms, in float32; 0 of a row without labels.

    Raises:
        UnlearunError: The strategy does not let the weights be seen, or they are quantised.
    """
    if policy.runs_together:
        raise UnlearunError(
            "mia_grad_norm needs the weights, which this strategy hides; use fsdp2 or ddp, or leave it out"
        )
    if not all(weight.is_floating_point() for weight in policy.parameters()):
        raise UnlearunError(
            "mia_grad_norm needs gradients of all weights, and those in 4 or 8 bits have none; leave it out"
        )
    rows = batch.mask.any(-1).nonzero()[:, 0].tolist()
    frozen = [weight for weight in policy.parameters() if not weight.requires_grad]
    lengths: dict[int, float] = {}
    with torch.inference_mode(False), torch.enable_grad():
        weights = [weight.requires_grad_() for weight in policy.parameters()]
        try:
            if is_sharded(policy):
                for turn in turns(len(rows), policy):
                    found = _shared_gradient(policy, weights, batch, 0 if turn is None else rows[turn], turn is None)
                    if turn is not None:
                        lengths[rows[turn]] = found
            else:
                for i in rows:
                    gradients = torch.autograd.grad(_loss(policy, batch, i), weights, allow_unused=True)
                    lengths[i] = float(length([gradient for gradient in gradients if gradient is not None]))
        finally:
            for weight in frozen:
                weight.requires_grad_(False)
    return torch.tensor(
        [lengths.get(i, 0.0) for i in range(len(batch))], dtype=torch.float32, device=batch.labels.device
    )


def _loss(policy: Policy, batch: Batch, row: int) -> Tensor:
    """Return -S/n of one row; 0 where it has no label."""
    chosen = torch.zeros(len(batch), dtype=torch.bool, device=batch.labels.device)
    chosen[row] = True
    # Tensors made in inference mode cannot take part in a backward pass; copies can.
    single = batch.select(chosen).map(torch.clone)
    total, count = sequence_logprobs(policy(single, "logprobs"), single.mask)
    return (-total / count.clamp(min=1)).sum()


def _shared_gradient(policy: Policy, weights: list[Tensor], batch: Batch, row: int, for_others: bool) -> float:
    """Return the length of a gradient that all processes make together, though one alone has a part in it."""
    (_loss(policy, batch, row) * (0 if for_others else torch.distributed.get_world_size())).backward()  # it averages
    found = float(length([weight.grad for weight in weights if weight.grad is not None]))
    for weight in weights:
        weight.grad = None
    return found
