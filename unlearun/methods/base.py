"""What all methods share: the model, the total loss, its scaling, logging, the optimizer, evaluation.

Shapes: B rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from inspect import signature
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.cli import instantiate_class
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy
from torch import Tensor

from unlearun.data import Batch
from unlearun.errors import UnlearunError, check_bounds, check_choice
from unlearun.methods.referenced import ReferencedModule, ReferenceNeed, ReferenceWay
from unlearun.models import (
    CHECKPOINT_KEY,
    Checkpointing,
    ModelLike,
    Policy,
    TokenizerLike,
    checkpoint_layers,
    load_model,
    load_tokenizer,
    return_freed_memory,
)
from unlearun.ops import sequence_logprobs, token_kl

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

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


class UnlearningMethod(ReferencedModule):
    """Base of all methods: minimises gamma * forget_loss + alpha * retain_loss.

    A method overrides `forget_loss`, rarely `retain_loss`, and says what it needs of a reference. Attributes that its
    `choose_trainable` or `reference_needs` reads must be set before ``super().__init__``, which takes in the model.

    Args:
        model: A hub id, a folder, a GGUF file, ``pocket`` (ships with the package), or a model object.
        tokenizer: A hub id, a folder or a tokenizer object. None: the model's own.
        reference: The frozen model that a loss compares with. None: the model as it is at the start.
        reference_way: How it is kept. "cache": the log-probabilities or last hidden states of all answers, computed
            once before step 0. "weights": the trained weights as they were, put back while they are asked. "copy": a
            frozen copy of the whole model. "auto": the cheapest that gives the loss what it needs; all give the same
            numbers.
        reference_cache_gb: "auto" keeps hidden states of up to so many GB, in the CPU's memory.
        gamma: Weight of the forget loss.
        alpha: Weight of the retain loss.
        retain_loss_type: "NLL", the negative log-likelihood of the retain answers, or "KL", the divergence from
            the reference on them; both are means over tokens.
        gradient_checkpointing: Whether activations are computed again in the backward pass, to save memory: true all
            but what goes into a layer, for about a quarter more time; "selective" those that take little time.
        dtype: What the weights are kept in; the computing precision is the Trainer's.
        compile_model: Whether torch.compile translates the decoder, which takes minutes and pays in long runs.

    Attributes:
        has_retain_term: Whether the method has a retain loss at all.
        needs_alternate: Whether forget batches must carry an alternate answer.
        fixed: Arguments of the base that the method does not take.
    """

    has_retain_term: ClassVar[bool] = True
    needs_alternate: ClassVar[bool] = False
    fixed: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        model: ModelLike,
        tokenizer: TokenizerLike | None = None,
        reference: ModelLike | None = None,
        reference_way: ReferenceWay = "auto",
        reference_cache_gb: float = 4.0,
        gamma: float = 1.0,
        alpha: float = 1.0,
        retain_loss_type: Literal["NLL", "KL"] = "NLL",
        gradient_checkpointing: Checkpointing = False,
        dtype: Literal["float32", "bfloat16", "float16", "float64"] = "float32",
        compile_model: bool = False,
    ) -> None:
        super().__init__(reference, reference_way, reference_cache_gb)
        check_choice("retain_loss_type", retain_loss_type, ("NLL", "KL"))
        if gradient_checkpointing not in (True, False, "selective"):
            raise UnlearunError(
                f"gradient_checkpointing is {gradient_checkpointing!r}; it must be one of true, false, selective"
            )
        check_bounds(gamma=(gamma, 0.0), alpha=(alpha, 0.0))
        self.gamma = gamma
        self.alpha = alpha
        self.retain_loss_type = retain_loss_type
        self.gradient_checkpointing = gradient_checkpointing
        self.dtype_name = dtype
        self.compile_model = compile_model
        self.model_name = model if isinstance(model, str) else None
        self.optimizer: dict[str, Any] = OPTIMIZER
        self.lr_scheduler: dict[str, Any] | None = None
        self._tokenizer = tokenizer
        self._step_parts: dict[str, Tensor] = {}
        if not isinstance(model, str):
            self._adopt(model)
            # The weights may change before the first step asks for the reference, so it is made here.
            self.keep_reference()

    # ---- what a method says ---------------------------------------------------------------------------------

    @property
    def trained_sets(self) -> tuple[str, ...]:
        """The sets that the loss reads: retain only where its term has a weight."""
        return ("forget", "retain") if self.has_retain_term and self.alpha > 0 else ("forget",)

    @property
    def reference_needs(self) -> frozenset[ReferenceNeed]:
        """What the loss reads of the frozen model.

        "logprobs" of whole forget answers and their alternates, "logits" of retain answers, "hidden" states of any.
        """
        return frozenset({"logits"} if self.retain_loss_type == "KL" and "retain" in self.trained_sets else ())

    def forget_loss(self, batch: Batch) -> Term:
        """Return what is minimised on the forget set.

        Args:
            batch: Rows of the forget set.
        """
        raise NotImplementedError(f"{type(self).__name__} must say what its forget loss is")

    def retain_loss(self, batch: Batch) -> Term:
        """Return what is minimised on the retain set.

        Args:
            batch: Rows of the retain set.
        """
        if self.retain_loss_type == "KL":
            logits = self.policy(batch, "logits")
            divergence = token_kl(self.reference.logit_pieces(batch), logits, consume=True)
            return Term(divergence.sum(), batch.token_count)
        return Term(-self.policy(batch, "logprobs").sum(), batch.token_count)

    def gain(self, batch: Batch) -> Tensor:
        """Return by how much the answers are likelier than at the start: S - S_ref ``(B,)``, in nats.

        Args:
            batch: Rows of any set.
        """
        total, _ = sequence_logprobs(self.policy(batch, "logprobs"), batch.mask)
        return total - self.reference.sequence_logprobs(batch)

    def record(self, name: str, share: Tensor) -> None:
        """Log a mean over the optimizer step as train/NAME, beside the parts of the loss.

        Args:
            name: What it is.
            share: What this micro-batch adds to the mean, see `Term`.
        """
        share = share.detach()
        self._step_parts[name] = self._step_parts.get(name, torch.zeros_like(share)) + share

    def choose_trainable(self) -> None:
        """Freeze what the method does not train; by default nothing."""

    # ---- the model ------------------------------------------------------------------------------------------

    @property
    def model(self) -> PreTrainedModel:
        """The transformers model inside."""
        if "policy" not in self._modules:
            raise UnlearunError("the model is loaded when the Trainer starts; call configure_model() to load it now")
        return self.policy.model

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer, loaded when first asked for.

        Raises:
            UnlearunError: The model came as an object and no tokenizer was given.
        """
        if self._tokenizer is None or isinstance(self._tokenizer, str):
            source = self._tokenizer or self.model_name or self.model.config.name_or_path
            if not source:
                raise UnlearunError("the model is an object without a name; give its tokenizer too: tokenizer=...")
            self._tokenizer = load_tokenizer(source)
        return self._tokenizer

    def configure_model(self) -> None:
        """Load the model, once; Lightning calls this after the data has been checked."""
        # On the CPU: Lightning calls this inside the context of its device, which transformers would take for a
        # device map, and moves the module itself later.
        with torch.device("cpu"):
            if "policy" not in self._modules:
                if self.model_name is None:
                    raise UnlearunError("there is no model to load")
                self._adopt(load_model(self.model_name, self.dtype_name))

    def on_fit_start(self) -> None:
        """Put the policy in train mode, and the reference in the precision that the policy has by now."""
        self.check_positions()
        self.policy.train()
        self._step_parts = {}  # of a fit that was broken off
        self.prepare_reference()
        if any(isinstance(callback, GradientAccumulationScheduler) for callback in self.trainer.callbacks):  # type: ignore[attr-defined]
            raise UnlearunError("the accumulation must not change during a run; use trainer.accumulate_grad_batches")

    def on_fit_end(self) -> None:
        """Leave the policy ready to answer, and free the device of the reference."""
        self.policy.eval()
        self.release_reference()

    def _adopt(self, model: PreTrainedModel) -> None:
        self.policy = Policy(model)
        self.choose_trainable()
        checkpoint_layers(model, self.gradient_checkpointing)
        if self.compile_model:
            model.base_model.compile(dynamic=True)

    # ---- training -------------------------------------------------------------------------------------------

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
        # By numbers that all processes have in common: where the model is sharded they must run the same forwards.
        for name in sorted(self.trained_sets, key=lambda name: -_labelled(batch[name])):
            if loss.requires_grad and self._differentiates_in_parts():
                loss = self._differentiate(loss)
            loss = loss + self._weighted_loss(name, batch[name])
        return loss

    def _weighted_loss(self, name: str, batch: Batch) -> Tensor:
        """Compute and log one set's part of the loss."""
        weight, part = (self.gamma, self.forget_loss) if name == "forget" else (self.alpha, self.retain_loss)
        loss = part(batch).mean()
        self.record("loss", weight * loss)
        self.record(f"{name}_loss", loss)
        if self._trainer is None:
            return weight * loss
        # Lightning divides by the accumulation and averages over processes; our denominators know both already.
        return weight * loss * self._trainer.accumulate_grad_batches * self._trainer.world_size

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
        """Log the parts of the loss, summed over the micro-batches and processes of the step."""
        for name, value in self._step_parts.items():
            self.log(f"train/{name}", value, prog_bar=True, sync_dist=True, reduce_fx="sum", batch_size=1)
        self._step_parts = {}

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
        optimizer.zero_grad()

    def configure_optimizers(self) -> Any:  # noqa: ANN401 - Lightning takes many forms
        """Build the optimizer over the trained parameters, and the scheduler, stepped once an epoch."""
        trained = [parameter for parameter in self.policy.parameters() if parameter.requires_grad]
        precision = "" if self._trainer is None else str(self._trainer.precision)
        optimizer = instantiate_class(trained, _fused(self.optimizer, precision))
        if self.lr_scheduler is None:
            return optimizer
        scheduler = instantiate_class(optimizer, self.lr_scheduler)
        if monitor := getattr(scheduler, "monitor", None):
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": monitor}}
        return [optimizer], [scheduler]

    # ---- checkpoints ----------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what an export needs, all of it plain values."""
        name = self._tokenizer if isinstance(self._tokenizer, str) else getattr(self._tokenizer, "name_or_path", None)
        checkpoint[CHECKPOINT_KEY] = {
            "method": type(self).__name__,
            "tokenizer": name or self.model_name,
            "generation_config": _plain(self.model.generation_config.to_dict()),
            "model_config": {"model_type": self.model.config.model_type, **_plain(self.model.config.to_dict())},
        }


def _labelled(batch: Batch) -> int:
    """Return how many labels the optimizer step has of a set, alternates included."""
    return batch.token_count + (0 if batch.alternate is None else batch.alternate.token_count)


def _fused(optimizer: dict[str, Any], precision: str) -> dict[str, Any]:
    """Choose the implementation that passes the weights once, where there is one and the user has not chosen."""
    given = optimizer.get("init_args") or {}
    module, _, name = str(optimizer["class_path"]).rpartition(".")
    cls = getattr(import_module(module), name, None) if module else None
    takes = cls is not None and "fused" in signature(cls.__init__).parameters
    # Under 16-mixed it unscales gradients by itself, and Lightning could not clip them.
    chosen = any(given.get(name) is not None for name in ("fused", "foreach"))  # a parser writes every default
    chosen = chosen or bool(given.get("capturable") or given.get("differentiable"))
    if not takes or chosen or precision == "16-mixed":
        return optimizer
    return {**optimizer, "init_args": {**given, "fused": True}}


def _plain(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(inner) for inner in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
