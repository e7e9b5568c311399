"""How long the gradient of a single example is.

Shapes: B rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unlearun.data import Batch
from unlearun.models.policy import Policy
from unlearun.ops import sequence_logprobs


def gradient_norms(policy: Policy, batch: Batch) -> Tensor:
    """Measure the gradient of each row's loss -S/n over all weights, one row at a time.

    Works inside inference mode, and leaves no gradient behind.

    Args:
        policy: The model; weights that a method has frozen count too.
        batch: Rows with labels.

    Returns:
        ``(B,)`` 2-norms, in float32; 0 of a row without labels.
    """
    frozen = [weight for weight in policy.parameters() if not weight.requires_grad]
    lengths: dict[int, float] = {}
    with torch.inference_mode(False), torch.enable_grad():
        weights = [weight.requires_grad_() for weight in policy.parameters()]
        try:
            for i in batch.mask.any(-1).nonzero()[:, 0].tolist():
                row = torch.zeros(len(batch), dtype=torch.bool, device=batch.labels.device)
                row[i] = True
                # Tensors made in inference mode cannot take part in a backward pass; copies can.
                single = batch.select(row).map(torch.clone)
                total, count = sequence_logprobs(policy(single, "logprobs"), single.mask)
                found = torch.autograd.grad((-total / count).sum(), weights, allow_unused=True)
                norms = [gradient.float().norm() for gradient in found if gradient is not None]
                lengths[i] = torch.stack(norms).norm().item()
        finally:
            for weight in frozen:
                weight.requires_grad_(False)
    return torch.tensor(
        [lengths.get(i, 0.0) for i in range(len(batch))], dtype=torch.float32, device=batch.labels.device
    )
