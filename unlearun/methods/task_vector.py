"""TaskVector: learn the forget set even better, and take away what that has changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor

from unlearun.data import Batch
from unlearun.errors import UnlearunError, check_bounds
from unlearun.methods.base import UnlearningMethod
from unlearun.methods.referenced import NeedOf
from unlearun.methods.strategies import ends_step, hides_weights
from unlearun.methods.training import Term
from unlearun.models import CHECKPOINT_KEY, LiveReference, ModelLike, Reference, scale_adapters


class TaskVector(UnlearningMethod):
    """Task arithmetic: trains on the forget set, then sets the weights to θ - scale (θ_ft - θ).

    Until the last optimizer step the model knows the forget set better and better; that step turns it round, before the
    last validation and checkpoint. There is no retain loss.
    Source: Ilharco 2023, "Editing Models with Task Arithmetic" (2212.04089), section 3.

    Args:
        model: A hub id, a folder, a GGUF file, ``pocket`` (ships with the package), or a model object.
        scale: How often the change is taken away; the authors choose from 0 to 1.
        kwargs: See `UnlearningMethod`.
    """

    has_retain_term: ClassVar[bool] = False
    fixed: ClassVar[tuple[str, ...]] = ("gamma", "alpha", "retain_loss_type", "reference")
    subtracted: Tensor

    def __init__(self, model: ModelLike, scale: float = 1.0, **kwargs: Any) -> None:
        self.refuse_fixed(kwargs)
        check_bounds(scale=(scale, 0.0))
        super().__init__(model, gamma=1.0, alpha=0.0, retain_loss_type="NLL", **kwargs)
        self.scale = scale
        self.register_buffer("subtracted", torch.tensor(False))

    @property
    def reference_needs(self) -> frozenset[NeedOf]:
        """The subtraction reads its weights, unless what has changed stands in adapters."""
        return frozenset({("weights", "forget")} if self.lora is None else ())

    def forget_loss(self, batch: Batch) -> Term:
        """Return the token mean of the negative log-likelihood: it is learnt, to be taken away."""
        return Term(-self.policy(batch, "logprobs").sum(), batch.token_count)

    def check_fit(self) -> None:
        """See `UnlearningMethod`.

        Raises:
            UnlearunError: The strategy keeps the adapters, whose change is to be taken away, to itself.
        """
        if self.lora is not None and hides_weights(self.trainer.strategy):
            name = type(self.trainer.strategy).__name__
            raise UnlearunError(f"{name} hides the adapters that TaskVector turns round; use --trainer.strategy fsdp2")
        super().check_fit()

    def on_train_start(self) -> None:
        """Refuse to train further what is the result already; a run that was left at its end has only to be measured.

        Raises:
            UnlearunError: The checkpoint that is resumed is the result.
        """
        super().on_train_start()
        if self.subtracted and self.trainer.global_step < self.trainer.estimated_stepping_batches:
            raise UnlearunError("the change was taken away already; start again from the model, not from its result")

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: torch.optim.Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """Take the step and, after the last one of the fit, the change away."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        # DeepSpeed is asked at every micro-batch of the last step, and counts it when that is done.
        last = self.trainer.global_step + 1 >= self.trainer.estimated_stepping_batches
        if last and ends_step(self.trainer):
            self.finish()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say of what is no result that it is none."""
        super().on_save_checkpoint(checkpoint)
        if not self.subtracted:
            checkpoint[CHECKPOINT_KEY]["unfinished"] = "it knows the forget set better, which is yet to be taken away"

    @torch.no_grad()
    def finish(self) -> None:
        """Set the weights to θ - scale (θ_ft - θ), once; a fit that stops early comes to it after its last step."""
        if self.subtracted:
            return
        if self.lora is None:
            self._subtract(self.reference)
        else:
            scale_adapters(self.policy, -self.scale)
        self.subtracted = torch.ones_like(self.subtracted)
        self.evaluated_fully = False  # what was measured before is another model

    def _subtract(self, start: Reference) -> None:
        if not isinstance(start, LiveReference):
            raise RuntimeError(f"the weights at the start are not kept by {start.describe()}")
        before = dict(start.weights())
        for name, weight in self.policy.named_parameters():
            if weight.requires_grad:
                kept = before[name].to(weight.device, weight.dtype)
                weight.copy_(kept - self.scale * (weight - kept))
