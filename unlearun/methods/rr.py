"""RR: turn the hidden states of forget text away from where they were, and hold those of retain text.

Shapes: B rows, T tokens, D width.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from unlearun.data import Batch
from unlearun.errors import UnlearunError, check_bounds
from unlearun.methods.base import UnlearningMethod
from unlearun.methods.referenced import NeedOf
from unlearun.methods.training import Term
from unlearun.models import ModelLike, choose_layers, find_layers


def rerouting_loss(hidden: Tensor, frozen: Tensor, mask: Tensor) -> Tensor:
    """Sum ReLU(cos(h, h_ref)) over the answer tokens.

    Args:
        hidden: ``(B, T, D)`` hidden states.
        frozen: ``(B, T, D)`` what they were.
        mask: ``(B, T)`` True at labelled tokens.

    Returns:
        A scalar from 0 to the number of tokens, which it is at the start.

    Source: Zou 2024 (2406.04313), algorithm 1.
    """
    dtype = torch.promote_types(hidden.dtype, torch.float32)
    return (cosine_similarity(hidden.to(dtype), frozen.to(dtype), dim=-1).relu() * mask).sum()


def holding_loss(hidden: Tensor, frozen: Tensor, mask: Tensor) -> Tensor:
    """Sum ‖h - h_ref‖₂ over the answer tokens.

    Args:
        hidden: ``(B, T, D)`` hidden states.
        frozen: ``(B, T, D)`` what they were.
        mask: ``(B, T)`` True at labelled tokens.

    Returns:
        A scalar, never below 0; 0 at the start.

    Source: Zou 2024 (2406.04313), algorithm 1.
    """
    dtype = torch.promote_types(hidden.dtype, torch.float32)
    return ((hidden.to(dtype) - frozen.to(dtype)).norm(dim=-1) * mask).sum()


class RR(UnlearningMethod):
    """Representation rerouting, the loss of circuit breakers: forget states turn at right angles to what they were.

    With t of T optimizer steps taken, forget weighs gamma (1 - t/2T) and retain alpha t/2T: first away, then hold.
    The layers up to the last target are trained, and nothing after it runs. At the very start the states are what they
    were, where a cosine has no slope: rounding gives the first step its direction, and an optimizer that does not go by
    the length of the gradient, such as AdamW, its length.
    Source: Zou 2024, "Improving Alignment and Robustness with Circuit Breakers" (2406.04313). Theirs trains LoRA
    adapters, and holds the states of all layers; here those that are read are held. Of 32 layers that is what
    the tenth and the twentieth put out.

    Args:
        model: A hub id, a folder, a GGUF file, ``pocket`` (ships with the package), or a model object.
        target_layers: Which layers' outputs are read, counted from 0. None: the last within 5/16 and within
            5/8 of the depth.
        gamma: Weight of the forget loss.
        alpha: Weight of the retain loss.
        schedule_steps: T. None: all optimizer steps of the fit.
        kwargs: See `UnlearningMethod`.
    """

    cost: ClassVar[str] = "forget + retain up to the last target layer, once more forward for the reference"
    fixed: ClassVar[tuple[str, ...]] = ("retain_loss_type",)

    def __init__(
        self,
        model: ModelLike,
        target_layers: list[int] | None = None,
        gamma: float = 10.0,
        alpha: float = 10.0,
        schedule_steps: int | None = None,
        **kwargs: Any,
    ) -> None:
        self.refuse_fixed(kwargs)
        check_bounds(schedule_steps=(schedule_steps, 1))
        # Before the base takes in a model object, for `choose_trained` reads it.
        self._requested_layers = target_layers
        self.target_layers: tuple[int, ...] = ()
        super().__init__(model, gamma=gamma, alpha=alpha, retain_loss_type="NLL", **kwargs)
        self.schedule_steps = schedule_steps

    @property
    def reference_needs(self) -> frozenset[NeedOf]:
        """Both losses read its hidden states."""
        needs: set[NeedOf] = {("hidden", "forget")}
        return frozenset(needs | {("hidden", "retain")} if self.alpha > 0 else needs)

    @property
    def progress(self) -> float:
        """Which share of the schedule is behind, from 0 to 1."""
        if self._trainer is None:
            return 0.0
        total = self.schedule_steps or float(self.trainer.estimated_stepping_batches)
        return min(1.0, self.trainer.global_step / total)

    @property
    def forget_weight(self) -> float | Tensor:
        """Gamma (1 - t/2T)."""
        return self.gamma * (1 - self.progress / 2)

    @property
    def retain_weight(self) -> float | Tensor:
        """Alpha t/2T."""
        return self.alpha * self.progress / 2

    def check_fit(self) -> None:
        """See `UnlearningMethod`.

        Raises:
            UnlearunError: The fit has no end that the schedule could go by.
        """
        super().check_fit()
        if self.schedule_steps is None and self.trainer.estimated_stepping_batches == float("inf"):
            raise UnlearunError("the fit has no last step, so the schedule has no length; set schedule_steps")

    def choose_trained(self) -> list[nn.Module]:
        """Train the decoder layers up to the last one that is read."""
        layers = find_layers(self.model).layers
        usual = [max(0, len(layers) * share // 16 - 1) for share in (5, 10)]
        self.target_layers = choose_layers(self._requested_layers, usual, len(layers))
        return list(layers[: self.target_layers[-1] + 1])

    def forget_loss(self, batch: Batch) -> Term:
        """Return the mean over tokens and layers of how far the states still point where they did."""
        return self._compare(rerouting_loss, batch)

    def retain_loss(self, batch: Batch) -> Term:
        """Return the mean over tokens and layers of how far the states have moved."""
        return self._compare(holding_loss, batch)

    def _compare(self, loss: Any, batch: Batch) -> Term:  # noqa: ANN401 - one of the two above
        frozen = self.reference.hidden(batch, self.target_layers)
        hidden = self.policy(batch, "hidden", self.target_layers)
        losses = [loss(*pair, batch.mask) for pair in zip(hidden, frozen, strict=True)]
        return Term(torch.stack(losses).mean(), batch.token_count)
