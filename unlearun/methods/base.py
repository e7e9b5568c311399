"""What all methods share: the model, the total loss, its scaling, logging, the optimizer, evaluation.

Shapes: B rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy
from torch import Tensor, nn

from unlearun.data import AlternateKind, Batch
from unlearun.errors import UnlearunError, check_bounds, check_choice
from unlearun.methods.referenced import NeedOf, ReferenceWay
from unlearun.methods.strategies import check, check_windows, prepare, prepare_deepspeed
from unlearun.methods.training import Term, TrainedModule
from unlearun.models import (
    CHECKPOINT_KEY,
    Checkpointing,
    LoRA,
    ModelLike,
    Policy,
    StoredWeights,
    TokenizerLike,
    adapter_names,
    add_adapters,
    base_of,
    checkpoint_layers,
    is_share,
    lasting_name,
    load_model,
    load_tokenizer,
    open_shares,
)
from unlearun.ops import sequence_logprobs, token_kl

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class UnlearningMethod(TrainedModule):
    """Base of all methods: minimises gamma * forget_loss + alpha * retain_loss.

    A method overrides `forget_loss`, rarely `retain_loss`, and says what it needs of a reference. Attributes that its
    `choose_trained` or `reference_needs` reads must be set before ``super().__init__``, which takes in the model.

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
        sharpness_radius: Above 0 the forget gradient is taken where the weights are moved so far up its own slope, so
            that small changes do not bring back what is forgotten (SAM; Fan 2025, 2502.05374, with 0.01); forget runs
            twice.
        gradient_surgery: Whether the forget gradient loses what points against the retain gradient of the step (GRU;
            Wang 2025, 2503.09117, who smooth the latter over steps).
        gradient_checkpointing: Whether activations are computed again in the backward pass, to save memory: true all
            but what goes into a layer, for about a quarter more time; "selective" those that take little time.
        lora: Low-rank adapters are trained instead of the weights, with r (16), alpha (twice that), dropout (0), target
            (names of linear layers; all that the method would train) and save (merged or adapter); ``lora.r 16`` is
            enough. None: the weights are.
        load_in_4bit: Whether the weights are kept in 4 bits (NF4 of bitsandbytes), beside which adapters are trained.
        dtype: What the weights are kept in; the computing precision is the Trainer's.
        compile_model: Whether torch.compile translates the decoder, which takes minutes and pays in long runs.
        trust_remote_code: Whether Python code that model, tokenizer and reference bring along may run.

    Attributes:
        has_forget_term: Whether the method has a forget loss at all.
        has_retain_term: Whether it has a retain loss.
        alternate: Which other answers its forget batches must carry, if any.
        cost: What a step runs forward and backward, where that is not its sets, whole.
        fixed: Arguments of the base that the method does not take.
    """

    has_forget_term: ClassVar[bool] = True
    has_retain_term: ClassVar[bool] = True
    alternate: ClassVar[AlternateKind | None] = None
    cost: ClassVar[str] = ""
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
        sharpness_radius: float = 0.0,
        gradient_surgery: bool = False,
        gradient_checkpointing: Checkpointing = False,
        lora: LoRA | None = None,
        load_in_4bit: bool = False,
        dtype: Literal["float32", "bfloat16", "float16", "float64"] = "float32",
        compile_model: bool = False,
        trust_remote_code: bool = False,
    ) -> None:
        super().__init__(reference, reference_way, reference_cache_gb, sharpness_radius, gradient_surgery)
        check_choice("retain_loss_type", retain_loss_type, ("NLL", "KL"))
        if gradient_checkpointing not in (True, False, "selective"):
            raise UnlearunError(
                f"gradient_checkpointing is {gradient_checkpointing!r}; it must be one of true, false, selective"
            )
        check_bounds(gamma=(gamma, 0.0), alpha=(alpha, 0.0))
        self.lora = None if lora is None else LoRA.of(lora)
        self.load_in_4bit = load_in_4bit
        if load_in_4bit and (self.lora is None or not isinstance(model, str)):
            raise UnlearunError(
                "load_in_4bit is for adapters beside a model that is loaded by name: "
                + ("add lora (--model.lora.r 16)" if self.lora is None else "name the model")
            )
        self.gamma = gamma
        self.alpha = alpha
        if gradient_surgery and not (self.has_forget_term and "retain" in self.trained_sets):
            raise UnlearunError(
                f"gradient_surgery weighs the forget gradient against that of retain; {type(self).__name__} here has "
                "not both: leave it out, or give alpha a weight"
            )
        if sharpness_radius > 0 and not self.has_forget_term:
            raise UnlearunError(f"sharpness_radius is of the forget loss; {type(self).__name__} has none: leave it out")
        self.retain_loss_type = retain_loss_type
        self.gradient_checkpointing = gradient_checkpointing
        self.dtype_name = dtype
        self.compile_model = compile_model
        self.trust_remote_code = trust_remote_code
        self.model_name = model if isinstance(model, str) else None
        self._tokenizer = tokenizer
        self._stored: StoredWeights | None = None
        if not isinstance(model, str):
            self._adopt(model)
            # The weights may change before the first step asks for the reference, so it is made here.
            self.keep_reference()

    # ---- what a method says ---------------------------------------------------------------------------------

    @property
    def trained_sets(self) -> tuple[str, ...]:
        """The sets that the loss reads: retain only where its term has a weight."""
        forget = ("forget",) if self.has_forget_term else ()
        return (*forget, "retain") if self.has_retain_term and (self.alpha > 0 or not forget) else forget

    @property
    def forget_weight(self) -> float | Tensor:
        """What the forget loss is multiplied with."""
        return self.gamma

    @property
    def retain_weight(self) -> float | Tensor:
        """What the retain loss is multiplied with."""
        return self.alpha

    @property
    def reference_needs(self) -> frozenset[NeedOf]:
        """What the loss reads of the frozen model, and of which set.

        "logprobs" of whole answers and, of forget, their alternates, "token_logprobs" of each token of them, "logits",
        "hidden" states, or its "weights".
        """
        reads = self.retain_loss_type == "KL" and "retain" in self.trained_sets
        return frozenset({("logits", "retain")} if reads else ())

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

    def choose_trained(self) -> list[nn.Module]:
        """Return the modules that the loss trains, or beside which adapters are; by default the whole model."""
        return [self.model]

    # ---- the model ------------------------------------------------------------------------------------------

    @property
    def is_loaded(self) -> bool:
        """Whether the model is in memory: one that is named is loaded only when a Trainer starts."""
        return "policy" in self._modules

    @property
    def model(self) -> PreTrainedModel:
        """The transformers model inside."""
        if not self.is_loaded:
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
            self._tokenizer = load_tokenizer(source, self.trust_remote_code)
        return self._tokenizer

    def setup(self, stage: str) -> None:
        """See `EvaluatedModule`; DeepSpeed takes what it finds, and what is loaded later would be in its way.

        Args:
            stage: fit, validate, test or predict.
        """
        super().setup(stage)
        if isinstance(self.trainer.strategy, DeepSpeedStrategy):
            prepare_deepspeed(self.trainer)
            self.configure_model()

    def configure_model(self) -> None:
        """Load the model, once; Lightning calls this after the data has been checked."""
        # On the CPU: Lightning calls this inside the context of its device, which transformers would take for a
        # device map, and moves the module itself later.
        with torch.device("cpu"):
            if not self.is_loaded:
                if self.model_name is None:
                    raise UnlearunError("there is no model to load")
                self._adopt(self._load(self.model_name))
        prepare(self, self._stored)

    def on_fit_start(self) -> None:
        """Put the policy in train mode, and the reference in the precision that the policy has by now."""
        self.check_fit()
        self.policy.train()
        self._step_parts = {}  # of a fit that was broken off
        self._gradients_checked = False
        self.make_ready()
        self.prepare_reference()

    def on_train_start(self) -> None:
        """Check what is known only now."""
        super().on_train_start()
        check_windows(self.trainer)

    def check_fit(self) -> None:
        """Check, before anything is computed, that the fit can be run.

        Raises:
            UnlearunError: It cannot.
        """
        self.check_positions()
        self.check_wrappers()
        check(self)
        if any(isinstance(callback, GradientAccumulationScheduler) for callback in self.trainer.callbacks):  # type: ignore[attr-defined]
            raise UnlearunError("the accumulation must not change during a run; use trainer.accumulate_grad_batches")

    def make_ready(self) -> None:
        """Prepare what the method itself needs for a fit, before its reference is asked; nothing by default."""

    def refuse_fixed(self, given: Mapping[str, Any]) -> None:
        """Check that nothing is set that the method sets itself.

        Args:
            given: Further arguments of its constructor.

        Raises:
            UnlearunError: Something is.
        """
        set_twice = [name for name in self.fixed if given.get(name) is not None]  # a parser hands over every default
        if set_twice:
            raise UnlearunError(f"{type(self).__name__} has no argument {set_twice[0]!r}: leave it out")

    def finish(self) -> None:
        """Bring the weights to what they shall be once training is over, before they are saved; nothing by default."""

    def on_train_end(self) -> None:
        """See `finish`, which the recorder of a run folder has called already."""
        self.finish()
        super().on_train_end()

    def on_fit_end(self) -> None:
        """Leave the policy ready to answer, and free the device of the reference."""
        self.policy.eval()
        self.release_reference()

    def _load(self, name: str) -> PreTrainedModel:
        """Load the model or, where it will be sharded, build it without weights if it can be read in shares."""
        if self.device_mesh is not None and not self.load_in_4bit:
            opened = open_shares(name, self.dtype_name, self.trust_remote_code)
            if opened is not None:
                bare, self._stored = opened
                return bare
        return load_model(name, self.dtype_name, self.load_in_4bit, self.trust_remote_code)

    def _adopt(self, model: PreTrainedModel) -> None:
        self.policy = Policy(model)
        trained = self.choose_trained()
        if self.lora is not None:
            add_adapters(model, self.lora, trained, None if self.model_name is None else base_of(self.model_name))
        elif trained != [model]:
            self.policy.requires_grad_(False)
            for module in trained:
                module.requires_grad_(True)
        checkpoint_layers(model, self.gradient_checkpointing)
        if self.compile_model:
            model.base_model.compile(dynamic=True)

    # ---- checkpoints ----------------------------------------------------------------------------------------

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """See `TrainedModule`; the weights that a checkpoint of adapters leaves out are there already.

        Raises:
            UnlearunError: A fit would go on with that of another method, or the adapters or models of the two differ.
        """
        super().on_load_checkpoint(checkpoint)
        stored = checkpoint.get(CHECKPOINT_KEY, {})
        method, adapters = stored.get("method"), stored.get("lora")
        fits = self._trainer is not None and self._trainer.state.fn == "fit"
        if fits and method not in (None, type(self).__name__):
            raise UnlearunError(
                f"the checkpoint is of a run of {method}, which {type(self).__name__} cannot go on with; export it "
                "(unlearun export CKPT DIR) and start from that folder"
            )
        if "state_dict" in checkpoint:  # else the strategy has loaded, and checked, it already
            self.check_adapters(checkpoint["state_dict"])
            self._check_weights(checkpoint["state_dict"])
        if adapters and self.lora is not None and LoRA.of(adapters).scale != self.lora.scale:
            raise UnlearunError(
                f"the adapters of the checkpoint have lora.alpha {LoRA.of(adapters).scale:g}, those of the model "
                f"{self.lora.scale:g}, which makes others of them; set lora (alpha) as in the run that is to go on"
            )

    def check_adapters(self, weights: Mapping[str, Tensor]) -> None:
        """Check that the adapters of a checkpoint are those of the model; the rest may be missing then.

        Args:
            weights: All that it has, or what tells their shapes.

        Raises:
            UnlearunError: They differ.
        """
        stored, own = (
            {name: tuple(state[name].shape) for name in adapter_names(state)} for state in (weights, self.state_dict())
        )
        if stored != own:
            raise UnlearunError(
                f"the checkpoint has {len(stored)} weights of adapters, the model {len(own)}"
                + (", of other shapes" if stored.keys() == own.keys() else "")
                + "; set lora (r, target) as in the run that is to go on"
            )
        self.strict_loading = not own

    def _check_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Check that the weights of a checkpoint are those of the model; adapters alone are a part of them."""
        if self.load_in_4bit:  # whose shapes are of bytes, as some device packs them
            return
        own = self.state_dict()
        shapes = {name: (tuple(weights[name].shape), tuple(own[name].shape)) for name in own.keys() & weights.keys()}
        other = sorted(name for name, (stored, here) in shapes.items() if stored != here)
        if other:
            stored, here = shapes[other[0]]
            found = f"its {other[0]} is {stored}, not {here}"
        elif self.strict_loading and (missing := own.keys() - weights.keys()):
            found = f"it has no {min(missing)}"
        elif unknown := weights.keys() - own.keys():
            found = f"the model has no {min(unknown)}"
        else:
            return
        raise UnlearunError(
            f"the checkpoint is of another model: {found}; name the model that the run began with (--model.model)"
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what an export needs, all of it plain values; leave out what can be loaded by name again."""
        # Shares are read all or none; FSDP1, too, reads all that it has, before anyone is asked.
        hidden = self._trainer is not None and isinstance(self.trainer.strategy, FSDPStrategy)
        whole = hidden or any(map(is_share, checkpoint["state_dict"].values()))
        if self.lora is not None and self.model_name is not None and not whole:
            state = checkpoint["state_dict"]
            kept = adapter_names(state)
            base = {f"policy.{key}" for key in self.policy.state_dict()} - kept
            checkpoint["state_dict"] = {key: value for key, value in state.items() if key not in base}
        name = self._tokenizer if isinstance(self._tokenizer, str) else getattr(self._tokenizer, "name_or_path", None)
        named = self.model_name
        checkpoint[CHECKPOINT_KEY] = {
            "method": type(self).__name__,
            "lora": None if self.lora is None else asdict(self.lora),
            "base": None if named is None else [lasting_name(named), self.dtype_name, self.load_in_4bit],
            "tokenizer": name or self.model_name,
            "generation_config": _plain(self.model.generation_config.to_dict()),
            "model_config": {"model_type": self.model.config.model_type, **_plain(self.model.config.to_dict())},
        }


def _plain(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(inner) for inner in value]
    # An enum may be a string too, but no checkpoint of plain values holds one.
    return value if value is None or type(value) in (bool, int, float, str) else str(value)
