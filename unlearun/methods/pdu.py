"""PDU: flatten the scores at the forget answers, and let the weight of retain follow from how it fares.

Shapes: N labelled tokens of the batch, V vocabulary.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from unlearun.data import Batch
from unlearun.errors import check_bounds
from unlearun.methods.base import UnlearningMethod
from unlearun.methods.training import Term
from unlearun.models import CHECKPOINT_KEY, ModelLike


def flattening_loss(logits: Tensor) -> Tensor:
    """Sum (max z - mean z)² over the tokens.

    Args:
        logits: ``(N, V)`` scores that predict the answer.

    Returns:
        A scalar, never below 0; 0 where all tokens are equally likely.

    Source: Entesari 2025 (2506.05314), the logit-margin flattening loss.
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    margin = logits.amax(-1).to(dtype) - logits.mean(-1, dtype=dtype)
    return margin.square().sum()


class PDU(UnlearningMethod):
    """Primal-dual unlearning: as flat as can be on forget, while the retain loss stays at ε.

    The loss is gamma L_f + λ (L_r - ε); after each optimizer step λ becomes max(0, λ + η (L_r - ε)), so retain weighs
    more for as long as it fares worse than ε. ``train/dual`` is λ.
    Source: Entesari 2025, "Constrained Entropic Unlearning: A Primal-Dual Framework for Large Language Models"
    (2506.05314); epsilon, dual_step, dual_start and gamma are the authors' for TOFU. Theirs leaves λ alone for five
    epochs; here it moves from the first step on.

    Args:
        model: A hub id, a folder, a GGUF file, ``pocket`` (ships with the package), or a model object.
        epsilon: The retain loss to stay at, in nats a token: somewhat above what it is at the start.
        dual_step: η, how fast λ follows.
        dual_start: λ at the start; large, for the forget loss is a square of scores.
        gamma: Weight of the forget loss.
        kwargs: See `UnlearningMethod`.
    """

    fixed: ClassVar[tuple[str, ...]] = ("alpha",)

    def __init__(
        self,
        model: ModelLike,
        epsilon: float = 0.3,
        dual_step: float = 1.0,
        dual_start: float = 100.0,
        gamma: float = 1.0,
        **kwargs: Any,
    ) -> None:
        self.refuse_fixed(kwargs)
        check_bounds(epsilon=(epsilon, 0.0), dual_step=(dual_step, 0.0), dual_start=(dual_start, 0.0))
        super().__init__(model, gamma=gamma, alpha=1.0, **kwargs)
        self.epsilon = epsilon
        self.dual_step = dual_step
        self.dual_start = float(dual_start)
        self.dual = self.dual_start  # no buffer, which would take the precision of the run

    @property
    def retain_weight(self) -> float | Tensor:
        """λ."""
        return self.dual

    def forget_loss(self, batch: Batch) -> Term:
        """Return the token mean of the squared margin."""
        return Term(flattening_loss(self.policy(batch, "logits")), batch.token_count)

    def make_ready(self) -> None:
        """Start from ``dual_start`` again, unless a run goes on."""
        if not self.trainer.ckpt_path:
            self.dual = self.dual_start

    def end_step(self) -> None:
        """Log λ, and let it follow the retain loss of the whole step."""
        excess = self.across_processes(self._step_parts["retain_loss"]) - self.epsilon
        # What is logged is summed over processes.
        share = torch.ones_like(excess) / self.trainer.world_size
        self.record("loss", -self.dual * self.epsilon * share)
        self.record("dual", self.dual * share)
        self.dual = max(0.0, self.dual + self.dual_step * float(excess))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add λ."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[CHECKPOINT_KEY]["dual"] = self.dual

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take λ back."""
        super().on_load_checkpoint(checkpoint)
        self.dual = float(checkpoint.get(CHECKPOINT_KEY, {}).get("dual", self.dual))
