"""What may be done to the gradients of a whole optimizer step, whatever the method.

Shapes: a gradient is one tensor a weight, in the order of the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


def inner_product(one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    """Compute the inner product of two gradients, in at least fp32, over all shards.

    Args:
        one: A gradient.
        other: Another, of the same weights.

    Returns:
        A scalar.

    >>> inner_product([torch.tensor([1.0, 2.0])], [torch.tensor([3.0, -1.0])])
    tensor(1.)
    """
    parts = []
    for a, b in zip(one, other, strict=True):
        dtype = torch.promote_types(a.dtype, torch.float32)
        part = (a.to(dtype) * b.to(dtype)).sum()
        parts.append(torch.as_tensor(part.full_tensor() if hasattr(part, "full_tensor") else part))
    return torch.stack(parts).sum()


def without_conflict(forget: Sequence[Tensor], retain: Sequence[Tensor]) -> list[Tensor]:
    """Take out of the forget gradient what would raise the retain loss: g_f - min(0, <g_f, g_r>)/|g_r|^2 g_r.

    Args:
        forget: The gradient of the forget loss.
        retain: That of the retain loss.

    Returns:
        The forget gradient, at right angles to the other if it was against it, else as it is.

    Source: Wang 2025 (2503.09117), gradient rectified unlearning.

    >>> without_conflict([torch.tensor([1.0, -1.0])], [torch.tensor([0.0, 2.0])])
    [tensor([1., 0.])]
    """
    length = inner_product(retain, retain)
    if length == 0:
        return list(forget)
    factor = torch.clamp(inner_product(forget, retain), max=0) / length
    return [f - factor.to(f.dtype) * r for f, r in zip(forget, retain, strict=True)]


def at_sharpest(
    weights: Sequence[nn.Parameter], forget: list[Tensor], radius: float, gradient: Callable[[], list[Tensor]]
) -> list[Tensor]:
    """Return the forget gradient where the weights are moved up its own slope: at θ + ρ g_f/|g_f|.

    Args:
        weights: θ; they are as they were when this returns.
        forget: g_f, the gradient at θ.
        radius: ρ, how far they are moved.
        gradient: Computes the gradient where the weights are.

    Source: Fan 2025 (2502.05374); Foret 2021 (2010.01412), equation 2.
    """
    length = inner_product(forget, forget).sqrt()
    if length == 0:
        return forget
    kept = [weight.detach().clone() for weight in weights]
    try:
        with torch.no_grad():
            for weight, slope in zip(weights, forget, strict=True):
                weight.add_(slope * (radius / length).to(slope.dtype))
        return gradient()
    finally:
        with torch.no_grad():
            for weight, before in zip(weights, kept, strict=True):
                weight.copy_(before)
