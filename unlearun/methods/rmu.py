"""RMU: steer the hidden states of forget text to a random direction, and hold those of retain text.

Shapes: B rows, T tokens, D width.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from unlearun.data import Batch
from unlearun.errors import check_bounds
from unlearun.methods.base import Term, UnlearningMethod
from unlearun.methods.referenced import ReferenceNeed
from unlearun.models import ModelLike, check_layer, find_layers, output_projection


def steering_loss(hidden: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Sum, over rows, the mean over answer tokens of ‖hidden - target‖²/D.

    Args:
        hidden: ``(B, T, D)`` hidden states.
        target: ``(B, T, D)``, or what broadcasts to it, where they should be.
        mask: ``(B, T)`` True at labelled tokens; a row without any counts for nothing.

    Returns:
        A scalar, never below 0.

    Source: Li 2024 (2403.03218), section 4.2.
    """
    dtype = torch.promote_types(hidden.dtype, torch.float32)
    distance = (hidden.to(dtype) - target.to(dtype)).pow(2).mean(-1) * mask
    return (distance.sum(-1) / mask.sum(-1).clamp(min=1)).sum()


def draw_direction(width: int, seed: int) -> Tensor:
    """Draw the unit vector u of RMU.

    Args:
        width: D.
        seed: What it is drawn from, so that all processes draw the same.

    Returns:
        ``(D,)``, drawn from U[0, 1) and normalised.
    """
    # Whatever device and precision are the default where it is drawn, it is the same vector.
    generator = torch.Generator("cpu").manual_seed(seed)
    uniform = torch.rand(width, generator=generator, device="cpu", dtype=torch.float32)
    return uniform / uniform.norm()


class RMU(UnlearningMethod):
    """Representation misdirection: after layer ℓ forget text points to a random direction, retain text stays.

    Only the MLP output projections of layers ℓ-2 to ℓ are trained, and nothing after layer ℓ runs.
    Source: Li 2024, "The WMDP Benchmark" (2403.03218); adaptive: Huu-Tien 2024 (2408.06223).

    Args:
        model: A hub id, a folder, a GGUF file, ``pocket`` (ships with the package), or a model object.
        steering_coeff: c, how long the vector is that forget states are steered to; with ``adaptive`` a factor on
            the length that the frozen state has.
        target_layer: ℓ, counted from 0. None: a quarter of the depth.
        adaptive: Whether each token's length is scaled to that of its frozen hidden state.
        alpha: Weight of the retain loss.
        vector_seed: What the random direction is drawn from.
        kwargs: See `UnlearningMethod`.
    """

    fixed: ClassVar[tuple[str, ...]] = ("retain_loss_type",)
    direction: Tensor

    def __init__(
        self,
        model: ModelLike,
        steering_coeff: float = 6.5,
        target_layer: int | None = None,
        adaptive: bool = False,
        alpha: float = 100.0,
        vector_seed: int = 0,
        **kwargs: Any,
    ) -> None:
        check_bounds(steering_coeff=(steering_coeff, 0.0))
        # Before the base takes in a model object, for `choose_trainable` reads these.
        self._requested_layer = target_layer
        self.steering_coeff = steering_coeff
        self.adaptive = adaptive
        self.vector_seed = vector_seed
        self.target_layer = -1
        super().__init__(model, alpha=alpha, retain_loss_type="NLL", **kwargs)

    @property
    def reference_needs(self) -> frozenset[ReferenceNeed]:
        """The retain loss, and the adaptive forget loss, read its hidden states."""
        return frozenset({"hidden"} if self.alpha > 0 or self.adaptive else ())

    def choose_trainable(self) -> None:
        """Train the MLP output projections of layers ℓ-2 to ℓ, and nothing else."""
        layers = find_layers(self.model).layers
        layer = len(layers) // 4 if self._requested_layer is None else self._requested_layer
        self.target_layer = check_layer(layer, len(layers))
        self.policy.requires_grad_(False)
        for index in range(max(0, layer - 2), layer + 1):
            output_projection(layers[index]).requires_grad_(True)
        width = self.model.config.get_text_config().hidden_size
        self.register_buffer("direction", draw_direction(width, self.vector_seed))

    def forget_loss(self, batch: Batch) -> Term:
        """Return the row mean of the distance to the steered direction."""
        length: Tensor | float = self.steering_coeff
        with self.policy.sharing_frozen_layers():
            if self.adaptive:
                frozen = self.reference.hidden(batch, self.target_layer).float()
                length = self.steering_coeff * frozen.norm(dim=-1, keepdim=True)
            hidden = self.policy(batch, "hidden", self.target_layer)
        target = length * self.direction.to(hidden.device).expand_as(hidden)
        return Term(steering_loss(hidden, target, batch.mask), batch.row_count)

    def retain_loss(self, batch: Batch) -> Term:
        """Return the row mean of the distance to the frozen model's hidden states."""
        with self.policy.sharing_frozen_layers():
            frozen = self.reference.hidden(batch, self.target_layer)
            hidden = self.policy(batch, "hidden", self.target_layer)
        return Term(steering_loss(hidden, frozen, batch.mask), batch.row_count)
