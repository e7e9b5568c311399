"""How every method takes an optimizer step: gradients of both sets, wrapped if wanted; the parts of the loss logged."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from inspect import signature
from typing import Any, NamedTuple

import torch
from lightning.pytorch.cli import instantiate_class
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, FSDPStrategy
from torch import Tensor, nn

from unlearun.data import Batch
from unlearun.errors import UnlearunError, check_bounds
from unlearun.methods.referenced import ReferencedModule, ReferenceWay
from unlearun.methods.strategies import divides_again, ends_step
from unlearun.methods.wrappers import at_sharpest, without_conflict
from unlearun.models import ModelLike, return_freed_memory

# The optimizer of every method unless another is given, in the form that configs have.
OPTIMIZER: dict[str, Any] = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-5}}


class Term(NamedTuple):
    """One part of the loss, as a sum over what is here.

    Attributes:
        total: The sum over tokens or rows of this micro-batch.
        over: By what it is divided: tokens or rows of the whole optimizer step.
    """

    total: Tensor
    over: int

    def mean(self) -> Tensor:
        """Return this micro-batch's share of the mean over the optimizer step."""
        return self.total / max(self.over, 1)


class TrainedModule(ReferencedModule):
    """A module that minimises a weighted sum of a forget and a retain loss.

    Args:
        reference: See `UnlearningMethod`.
        reference_way: See `UnlearningMethod`.
        reference_cache_gb: See `UnlearningMethod`.
        sharpness_radius: See `UnlearningMethod`.
        gradient_surgery: See `UnlearningMethod`.

    Attributes:
        watch_steps: Sees this module and the parts of its loss when all gradients of a step are there, and may stop it.
    """

    def __init__(
        self,
        reference: ModelLike | None,
        reference_way: ReferenceWay,
        reference_cache_gb: float,
        sharpness_radius: float,
        gradient_surgery: bool,
    ) -> None:
        super().__init__(reference, reference_way, reference_cache_gb)
        check_bounds(sharpness_radius=(sharpness_radius, 0.0))
        self.sharpness_radius = sharpness_radius
        self.gradient_surgery = gradient_surgery
        self._kept_batches: list[dict[str, Batch]] = []
        self.optimizer: dict[str, Any] = OPTIMIZER
        self.lr_scheduler: dict[str, Any] | None = None
        self.watch_steps: Callable[[Any, dict[str, Tensor]], None] | None = None
        self._step_parts: dict[str, Tensor] = {}
        self._gradients_checked = False

    @property
    def trained_sets(self) -> tuple[str, ...]:
        """The sets that the loss reads."""
        raise NotImplementedError

    @property
    def forget_weight(self) -> float | Tensor:
        """What the forget loss is multiplied with."""
        raise NotImplementedError

    @property
    def retain_weight(self) -> float | Tensor:
        """What the retain loss is multiplied with."""
        raise NotImplementedError

    def forget_loss(self, batch: Batch) -> Term:
        """Return what is minimised on the forget set.

        Args:
            batch: Rows of the forget set.
        """
        raise NotImplementedError(f"{type(self).__name__} must say what its forget loss is")

    def retain_loss(self, batch: Batch) -> Term:
        """Return what is minimised on the retain set."""
        raise NotImplementedError

    def record(self, name: str, share: Tensor) -> None:
        """Log a mean over the optimizer step as train/NAME, beside the parts of the loss.

        Args:
            name: What it is.
            share: What this micro-batch adds to the mean, see `Term`.
        """
        share = share.detach()
        self._step_parts[name] = self._step_parts.get(name, torch.zeros_like(share)) + share

    def across_processes(self, share: Tensor) -> Tensor:
        """Return the sum over processes.

        Args:
            share: What this process has.
        """
        total = self.trainer.strategy.reduce(share.detach().clone(), reduce_op="sum")
        return torch.as_tensor(total)

    def training_step(self, batch: dict[str, Batch], batch_idx: int) -> Tensor:
        """Compute gamma * forget_loss + alpha * retain_loss of one micro-batch.

        Under a Trainer the graph of one set at a time exists: all but the last are differentiated here. The larger
        set comes first, for the gradients, which the next one finds, are as large as the model.

        Args:
            batch: The forget batch and, where the method has a retain term, the retain batch.
            batch_idx: Its number in the epoch; gradients are cleared where an optimizer step begins.

        Returns:
            A scalar. Its gradients with those that are there already, summed as Lightning does over micro-batches
            and processes, are those of the mean over the whole optimizer step.

        Raises:
            UnlearunError: A set is missing from the batch.
        """
        missing = [name for name in self.trained_sets if name not in batch]
        if missing:
            raise UnlearunError(
                f"{type(self).__name__} trains on {' and '.join(self.trained_sets)}; the batch has only "
                f"{', '.join(batch) or 'nothing'}: add {missing[0]}"
            )
        if self._trainer is not None and batch_idx % self._trainer.accumulate_grad_batches == 0:
            self.zero_grad()  # in the place of Lightning, see `optimizer_zero_grad`
        loss = torch.zeros((), device=self.device)
        for name in ("loss", *(f"{name}_loss" for name in self.trained_sets)):
            self.record(name, loss)  # in this order, whichever comes first
        if self._is_wrapped():
            if batch_idx % self.trainer.accumulate_grad_batches == 0:
                self._kept_batches = []
            self._kept_batches.append(batch)
            return loss + self._weighted_loss("forget", batch["forget"])  # the rest once all of the step is there
        # By numbers that all processes have in common: where the model is sharded they must run the same forwards.
        for name in sorted(self.trained_sets, key=lambda name: -_labelled(batch[name])):
            if loss.requires_grad and self._differentiates_in_parts():
                loss = self._differentiate(loss)
            loss = loss + self._weighted_loss(name, batch[name])
        return loss

    def _weighted_loss(self, name: str, batch: Batch) -> Tensor:
        """Compute and log one set's part of the loss."""
        return self._weight(name) * self._loss(name, batch)

    def _weight(self, name: str) -> float | Tensor:
        return self.forget_weight if name == "forget" else self.retain_weight

    def _loss(self, name: str, batch: Batch) -> Tensor:
        """Compute one set's loss, without its weight, and log it and its part of the whole."""
        loss = (self.forget_loss if name == "forget" else self.retain_loss)(batch).mean()
        self.record("loss", self._weight(name) * loss)
        self.record(f"{name}_loss", loss)
        if self._trainer is None:
            return loss
        # Lightning divides by the accumulation and averages over processes; our denominators know both already.
        return loss * self._trainer.accumulate_grad_batches * self._trainer.world_size * divides_again(self.trainer)

    def _differentiates_in_parts(self) -> bool:
        """Say whether a backward pass may run within the forward of the strategy; FSDP1 and DeepSpeed forbid it."""
        return self._trainer is not None and not isinstance(self.trainer.strategy, (FSDPStrategy, DeepSpeedStrategy))

    def _differentiate(self, loss: Tensor) -> Tensor:
        """Add the gradients of a part of the loss to what is there, as Lightning will those of the rest.

        Returns:
            Its value.
        """
        precision = self.trainer.precision_plugin
        with torch.autocast(self.device.type, enabled=False):  # Lightning's own backward pass is outside it, too
            # Lightning divides by the accumulation once training_step has returned.
            scaled = precision.pre_backward(loss / self.trainer.accumulate_grad_batches, self)
            precision.backward(scaled, self, None)
        if self.device.type == "cpu":
            return_freed_memory()
        return loss.detach()

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: torch.optim.Optimizer) -> None:
        """Do nothing: Lightning calls it between `training_step`, which leaves gradients, and its backward pass.

        The former lets go of the gradients of the step before.

        Args:
            epoch: See Lightning.
            batch_idx: See Lightning.
            optimizer: See Lightning.
        """

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Log the parts of the loss, summed over the micro-batches and processes of the step.

        Raises:
            UnlearunError: In the first step: a weight that is to be trained has got no gradient.
        """
        if not ends_step(self.trainer):
            return
        if self._is_wrapped():
            self._wrap_gradients()
        self._check_gradients()
        if self.watch_steps is not None:
            self.watch_steps(self, self._step_parts)
        self.end_step()
        for name, value in self._step_parts.items():
            self.log(f"train/{name}", value, prog_bar=True, sync_dist=True, reduce_fx="sum", batch_size=1)
        self._step_parts = {}

    def end_step(self) -> None:
        """See what the parts of the loss were, before they are logged; nothing by default."""

    def check_wrappers(self) -> None:
        """Check, before a fit, that gradients of a whole step can be had.

        Raises:
            UnlearunError: The strategy or the precision holds gradients itself.
        """
        if not self._is_wrapped():
            return
        wrapper = "gradient_surgery" if self.gradient_surgery else "sharpness_radius"
        if not self._differentiates_in_parts():
            name = type(self.trainer.strategy).__name__
            raise UnlearunError(
                f"{wrapper} does not work with {name}, which holds the gradients itself; use ddp or FSDP2"
            )
        trained = {weight.dtype for weight in self.policy.parameters() if weight.requires_grad}
        if self.sharpness_radius > 0 and any(dtype.itemsize < 4 for dtype in trained):
            raise UnlearunError(
                "sharpness_radius moves weights by less than 16 bits can tell; keep them in float32 and compute in "
                "less: --model.dtype float32 --trainer.precision bf16-mixed"
            )
        if str(self.trainer.precision) == "16-mixed":
            raise UnlearunError(
                f"{wrapper} does not work with precision 16-mixed, which scales gradients; use bf16-mixed"
            )

    def _is_wrapped(self) -> bool:
        return self._trainer is not None and (self.sharpness_radius > 0 or self.gradient_surgery)

    def _wrap_gradients(self) -> None:
        """Put together the gradient of the step: of retain where the weights are, of forget as the wrappers want it."""
        weights = [weight for weight in self.policy.parameters() if weight.requires_grad]
        forget, reached = self._take(weights)
        retain = None
        if "retain" in self.trained_sets:  # without its weight: where that is 0, it has a direction all the same
            retain, more = self._gradients("retain", weights)
            reached = [a or b for a, b in zip(reached, more, strict=True)]
        if self.sharpness_radius > 0:
            logged, self._step_parts = self._step_parts, {}  # what is logged is the loss where the weights are
            forget = at_sharpest(
                weights,
                forget,
                self.sharpness_radius,
                lambda: [self._weight("forget") * one for one in self._gradients("forget", weights)[0]],
            )
            self._step_parts = logged
        if self.gradient_surgery and retain is not None:
            forget = without_conflict(forget, retain)
        for i, weight in enumerate(weights):
            if reached[i]:
                weight.grad = forget[i] if retain is None else forget[i] + self._weight("retain") * retain[i]

    def _gradients(self, name: str, weights: list[nn.Parameter]) -> tuple[list[Tensor], list[bool]]:
        """Return the gradient of one set's loss of the whole step, over all processes, and which weights it reaches."""
        for batch in self._kept_batches:
            with self.trainer.precision_plugin.forward_context():
                loss = self._loss(name, batch[name])
            self._differentiate(loss)
        found, reached = self._take(weights)
        if isinstance(self.trainer.strategy, DDPStrategy):  # it reduces in the backward pass of training_step alone
            found = [torch.as_tensor(self.trainer.strategy.reduce(one, reduce_op="mean")) for one in found]
        return found, reached

    @staticmethod
    def _take(weights: list[nn.Parameter]) -> tuple[list[Tensor], list[bool]]:
        """Return the gradients of weights, and which have one, and let go of them."""
        reached = [weight.grad is not None for weight in weights]
        found = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights]
        for weight in weights:
            weight.grad = None
        return found, reached

    def _check_gradients(self) -> None:
        """Stop, once a fit, where training would go on without effect and without a sign of it."""
        if self._gradients_checked or not self._differentiates_in_parts():  # those strategies hold gradients themselves
            return
        self._gradients_checked = True
        trained = [(name, weight) for name, weight in self.policy.named_parameters() if weight.requires_grad]
        missing = [name.removeprefix("model.") for name, weight in trained if weight.grad is None]
        if missing:
            raise UnlearunError(
                f"{len(missing)} of {len(trained)} trained weights got no gradient in the first step (first: "
                f"{missing[0]}), so the loss does not reach them: freeze them, or name others with lora.target"
            )

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: torch.optim.Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """Take the step, and let go of the gradients: Lightning would keep them while the next graph is built.

        Args:
            epoch: See Lightning.
            batch_idx: See Lightning.
            optimizer: See Lightning.
            optimizer_closure: See Lightning.
        """
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        if not ends_step(self.trainer):
            return
        optimizer.zero_grad()
        self._kept_batches = []

    def configure_optimizers(self) -> Any:  # noqa: ANN401 - Lightning takes many forms
        """Build the optimizer over the trained parameters, and the scheduler, stepped once an epoch."""
        trained = [parameter for parameter in self.policy.parameters() if parameter.requires_grad]
        # Lightning does not clip the gradients of one that unscales them by itself, in bfloat16 either.
        trainer = self._trainer
        mixed = trainer is not None and str(trainer.precision).endswith("-mixed")
        clips = trainer is not None and trainer.gradient_clip_val is not None
        refused = mixed and (clips or str(getattr(trainer, "precision", "")) == "16-mixed")
        optimizer = _made(trained, self.optimizer if refused else _fused(self.optimizer))
        if self.lr_scheduler is None:
            return optimizer
        scheduler = _made(optimizer, self.lr_scheduler)
        if monitor := getattr(scheduler, "monitor", None):
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": monitor}}
        return [optimizer], [scheduler]


def _made(over: Any, settings: dict[str, Any]) -> Any:  # noqa: ANN401 - an optimizer or a scheduler
    """Make an optimizer of parameters, or a scheduler of an optimizer, and say which of its settings it refuses."""
    try:
        return instantiate_class(over, settings)
    except (ValueError, TypeError, ImportError, AttributeError) as error:
        message = f"{settings.get('class_path')} cannot be made with the settings that it was given: {error}"
        raise UnlearunError(message) from error


def _labelled(batch: Batch) -> int:
    """Return how many labels the optimizer step has of a set, alternates included."""
    return batch.token_count + (0 if batch.alternate is None else batch.alternate.token_count)


def _fused(optimizer: dict[str, Any]) -> dict[str, Any]:
    """Choose the implementation that passes the weights once, where there is one and the user has not chosen."""
    given = optimizer.get("init_args") or {}
    module, _, name = str(optimizer["class_path"]).rpartition(".")
    cls = getattr(import_module(module), name, None) if module else None
    takes = cls is not None and "fused" in signature(cls.__init__).parameters
    chosen = any(given.get(name) is not None for name in ("fused", "foreach"))  # a parser writes every default
    chosen = chosen or bool(given.get("capturable") or given.get("differentiable"))
    if not takes or chosen:
        return optimizer
    return {**optimizer, "init_args": {**given, "fused": True}}
