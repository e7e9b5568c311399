"""RMU: steer the hidden states of forget text to a random direction, and hold those of retain text.

Shapes: B rows, T tokens, D width.
"""

from __future__ import annotations

import hashlib
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from unlearun.data import Batch
from unlearun.errors import check_bounds
from unlearun.methods.base import UnlearningMethod
from unlearun.methods.referenced import NeedOf
from unlearun.methods.training import Term
from unlearun.models import CHECKPOINT_KEY, ModelLike, choose_layers, find_layers, output_projection


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


def draw_direction(width: int, seed: int, topic: str | None = None) -> Tensor:
    """Draw the unit vector u of RMU.

    Args:
        width: D.
        seed: What it is drawn from, so that all processes draw the same.
        topic: Whose; every topic has its own.

    Returns:
        ``(D,)``, drawn from U[0, 1) and normalised.
    """
    if topic is not None:
        digest = hashlib.sha256(f"{seed}/{topic}".encode()).digest()
        seed = int.from_bytes(digest[:8], "big") >> 1
    # Whatever device and precision are the default where it is drawn, it is the same vector.
    generator = torch.Generator("cpu").manual_seed(seed)
    uniform = torch.rand(width, generator=generator, device="cpu", dtype=torch.float32)
    return uniform / uniform.norm()


class RMU(UnlearningMethod):
    """Representation misdirection: after layer ℓ forget text points to a random direction, retain text stays.

    Only the MLP output projections of layers ℓ-2 to ℓ are trained, and nothing after layer ℓ runs. With several target
    layers those of each are trained, and their losses averaged. Where forget rows have a ``topic``, each topic has a
    direction of its own.
    Source: Li 2024, "The WMDP Benchmark" (2403.03218); adaptive: Huu-Tien 2024 (2408.06223).

    Args:
        model: A hub id, a folder, a GGUF file, ``pocket`` (ships with the package), or a model object.
        steering_coeff: c, how long the vector is that forget states are steered to; with ``adaptive`` a factor on
            the length that the frozen state has.
        target_layer: ℓ, counted from 0, or a list of several. None: a quarter of the depth.
        adaptive: Whether each token's length is scaled to that of its frozen hidden state.
        alpha: Weight of the retain loss.
        vector_seed: What the random directions are drawn from.
        kwargs: See `UnlearningMethod`.
    """

    cost: ClassVar[str] = "forget + retain up to the target layer, backward to three matrices a target layer"
    fixed: ClassVar[tuple[str, ...]] = ("retain_loss_type",)
    direction: Tensor

    def __init__(
        self,
        model: ModelLike,
        steering_coeff: float = 6.5,
        target_layer: int | list[int] | None = None,
        adaptive: bool = False,
        alpha: float = 100.0,
        vector_seed: int = 0,
        **kwargs: Any,
    ) -> None:
        self.refuse_fixed(kwargs)
        check_bounds(steering_coeff=(steering_coeff, 0.0))
        # Before the base takes in a model object, for `choose_trained` reads these.
        self._requested_layer = target_layer
        self.steering_coeff = steering_coeff
        self.adaptive = adaptive
        self.vector_seed = vector_seed
        self.target_layers: tuple[int, ...] = ()
        self.topic_directions: dict[str, Tensor] = {}
        super().__init__(model, alpha=alpha, retain_loss_type="NLL", **kwargs)

    @property
    def reference_needs(self) -> frozenset[NeedOf]:
        """The retain loss, and the adaptive forget loss, read its hidden states."""
        needs: set[NeedOf] = {("hidden", "retain")} if self.alpha > 0 else set()
        return frozenset(needs | {("hidden", "forget")} if self.adaptive else needs)

    def choose_trained(self) -> list[nn.Module]:
        """Train the MLP output projections of layers ℓ-2 to ℓ, and nothing else."""
        layers = find_layers(self.model).layers
        self.target_layers = choose_layers(self._requested_layer, (len(layers) // 4,), len(layers))
        self.register_buffer("direction", draw_direction(self._width(), self.vector_seed))
        near = {i for layer in self.target_layers for i in range(max(0, layer - 2), layer + 1)}
        return [output_projection(layers[i]) for i in sorted(near)]

    def forget_loss(self, batch: Batch) -> Term:
        """Return the row mean of the distance to the steered direction, averaged over layers."""
        with self.policy.sharing_frozen_layers():
            frozen = self.reference.hidden(batch, self.target_layers) if self.adaptive else None
            hidden = self.policy(batch, "hidden", self.target_layers)
        direction = self._directions(batch).to(hidden[0].device)
        losses = []
        for i, states in enumerate(hidden):
            length: Tensor | float = self.steering_coeff
            if frozen is not None:
                length = self.steering_coeff * frozen[i].float().norm(dim=-1, keepdim=True)
            losses.append(steering_loss(states, (length * direction).expand_as(states), batch.mask))
        return Term(torch.stack(losses).mean(), batch.row_count)

    def retain_loss(self, batch: Batch) -> Term:
        """Return the row mean of the distance to the frozen model's hidden states, averaged over layers."""
        with self.policy.sharing_frozen_layers():
            frozen = self.reference.hidden(batch, self.target_layers)
            hidden = self.policy(batch, "hidden", self.target_layers)
        losses = [steering_loss(*pair, batch.mask) for pair in zip(hidden, frozen, strict=True)]
        return Term(torch.stack(losses).mean(), batch.row_count)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the directions of topics."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[CHECKPOINT_KEY]["topic_directions"] = dict(self.topic_directions)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take back the directions of topics."""
        super().on_load_checkpoint(checkpoint)
        self.topic_directions = dict(checkpoint.get(CHECKPOINT_KEY, {}).get("topic_directions", {}))

    def _directions(self, batch: Batch) -> Tensor:
        """Return u ``(D,)``, or that of each row's topic ``(B, 1, D)``."""
        if batch.topics is None:
            return self.direction
        found = []
        for topic in batch.topics:
            if topic is not None and topic not in self.topic_directions:
                self.topic_directions[topic] = draw_direction(self._width(), self.vector_seed, topic)
            found.append(self.direction.cpu() if topic is None else self.topic_directions[topic].cpu())
        return torch.stack(found).unsqueeze(1)

    def _width(self) -> int:
        return int(self.model.config.get_text_config().hidden_size)
