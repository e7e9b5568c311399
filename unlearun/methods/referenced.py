"""How a method keeps the frozen model that its loss compares with.

Shapes: B rows.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

from torch import distributed

from unlearun.data import Batch, Example, UnlearningDataModule, collate
from unlearun.errors import UnlearunError, check_bounds, check_choice
from unlearun.methods.evaluated import EvaluatedModule
from unlearun.methods.strategies import hides_weights
from unlearun.models import (
    AdaptersOff,
    CachedLogprobs,
    CachedStates,
    FrozenCopy,
    FrozenHead,
    LiveReference,
    ModelLike,
    OriginalWeights,
    Reference,
    SplitReference,
    StoredWeights,
    check_comparable,
    has_adapters,
    is_sharded,
    load_model,
    open_shares,
    shard,
    weights_digest,
)

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

T = TypeVar("T")
ReferenceNeed: TypeAlias = Literal["logprobs", "token_logprobs", "logits", "hidden", "weights"]
NeedOf: TypeAlias = tuple[ReferenceNeed, Literal["forget", "retain"]]  # what is read, and of which set
ReferenceWay: TypeAlias = Literal["auto", "cache", "weights", "copy"]
WAYS = ("auto", "cache", "weights", "copy")


class ReferencedModule(EvaluatedModule):
    """A module with a reference: the model as it was at the start, or another, kept in the cheapest exact way.

    Args:
        reference: The frozen model. None: the model as it is at the start.
        reference_way: "cache", "weights", "copy" or "auto"; see `UnlearningMethod`.
        reference_cache_gb: What cached hidden states may take; see `UnlearningMethod`.

    Attributes:
        run_folder: Where a cache is written, if anywhere.
    """

    dtype_name: str
    trust_remote_code: bool

    def __init__(self, reference: ModelLike | None, reference_way: ReferenceWay, reference_cache_gb: float) -> None:
        super().__init__()
        check_choice("reference_way", reference_way, WAYS)
        check_bounds(reference_cache_gb=(reference_cache_gb, 0.0))
        self.reference_way = reference_way
        self.reference_cache_gb = reference_cache_gb
        self.run_folder: Path | None = None
        # In a list, or a module would become a part of this one, and of every checkpoint.
        self._given = [reference]
        self._reference: Reference | None = None
        self._caches: dict[ReferenceNeed, CachedLogprobs | CachedStates] = {}

    @property
    def model(self) -> PreTrainedModel:
        """The transformers model inside."""
        raise NotImplementedError

    @property
    def reference_needs(self) -> frozenset[NeedOf]:
        """What the loss reads of the frozen model, and of which set."""
        return frozenset()

    @property
    def needs_reference(self) -> bool:
        """Whether the loss reads the frozen model at all."""
        return bool(self.reference_needs)

    @property
    def reference(self) -> Reference:
        """The frozen model, made when first asked for."""
        if self._reference is None:
            self._reference = self._make_reference()
        return self._reference

    def keep_reference(self) -> None:
        """Keep the model as it is now, if the loss reads it and nothing was kept before."""
        if self.needs_reference and self._reference is None:
            self._reference = self._make_reference()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the start of a run that goes on, before the checkpoint's weights take its place."""
        super().on_load_checkpoint(checkpoint)
        if self._trainer is not None and self._trainer.state.fn == "fit":
            self.keep_reference()

    def prepare_reference(self) -> None:
        """Bring the reference to the device and precision of the run, and replace it by caches where they will do.

        Raises:
            UnlearunError: A cache was asked for, and the loss reads more than can be cached.
        """
        if not self.needs_reference:
            return
        cached = self._to_cache()
        if self.reference_way == "cache" and cached != self._kinds():
            raise UnlearunError(
                "reference_way is 'cache', which holds log-probabilities and, for a head that is a linear map, the "
                "hidden states that logits are made of, of rows of an UnlearningDataModule; the loss of "
                f"{type(self).__name__} reads {' and '.join(sorted(self._kinds()))}: use auto"
            )
        if cached:
            self._reference = self._make_caches(self._data(), cached)
        elif self._caches:
            self._forget_caches()
        self.reference.convert(self.trainer.precision_plugin.convert_module)
        log.info("reference: %s", self.reference.describe())

    @property
    def has_copy(self) -> bool:
        """Whether the reference, if there is one, is a model of its own."""
        return self.reference_way == "copy" or self._given[0] is not None

    def shard_reference(self, mesh: DeviceMesh, stored: StoredWeights | None) -> None:
        """Spread a copy that is the reference over processes, before the policy is, which then cannot be copied.

        Args:
            mesh: Of one dimension.
            stored: What the policy is to be filled from, if it has no weights yet.
        """
        given = self._given[0]
        opened = None
        if isinstance(given, str) and self.needs_reference and self._reference is None:
            opened = open_shares(given, self.dtype_name, self.trust_remote_code)
        if opened is not None:
            self._reference, stored = FrozenCopy(opened[0], copy=False), opened[1]
        elif self.has_copy:
            self.keep_reference()
            stored = stored if given is None else None
        if isinstance(self._reference, FrozenCopy):
            shard(self._reference.policy, mesh)
            if stored is not None:
                stored.fill(self._reference.policy, self.trainer.strategy.root_device)

    def release_reference(self) -> None:
        """Free the device of the reference, but for shares, which are small and stay where their owner put them."""
        if self._reference is not None and not is_sharded(self.policy):
            self._reference.convert(lambda module: module.cpu())

    # ---- inside ---------------------------------------------------------------------------------------------

    def _make_reference(self) -> LiveReference:
        given = self._given[0]
        if given is not None:
            trusted = self.trust_remote_code
            loaded = load_model(given, self.dtype_name, trusted=trusted) if isinstance(given, str) else given
            check_comparable(self.model, loaded, self._kinds())
            return FrozenCopy(loaded, copy=loaded is given)
        if self.reference_way == "copy":
            return FrozenCopy(self.model)
        return AdaptersOff(self.policy) if has_adapters(self.policy) else OriginalWeights(self.policy)

    def _to_cache(self) -> set[ReferenceNeed]:
        """Choose what is computed once, before step 0, instead of live."""
        data = getattr(self._trainer, "datamodule", None)
        if not isinstance(data, UnlearningDataModule) or self.reference_way not in ("auto", "cache"):
            return set()
        if hides_weights(self.trainer.strategy):  # a model runs within a step alone
            return set()
        needs = self._kinds() - {"hidden", "weights"}  # states of a few layers cost less live
        if "logits" in needs and not self._can_cache_states(data):
            needs.remove("logits")
        return needs

    def _kinds(self) -> set[ReferenceNeed]:
        return {need for need, _ in self.reference_needs}

    def _asked(self, data: UnlearningDataModule, need: ReferenceNeed) -> list[Example]:
        """Return the answers that are asked about: of logits, which are large, those that the fit will draw alone."""
        sets = sorted(name for kind, name in self.reference_needs if kind == need)
        if need == "logits":
            return [row for name in sets for row in data.drawn(name)]
        alternates = data.alternates() if "forget" in sets else None
        return [*(row for name in sets for row in data.examples(name)), *(alternates or [])]

    def _can_cache_states(self, data: UnlearningDataModule) -> bool:
        """Say whether the hidden states that make the logits can be kept."""
        new = self._given[0] is not None and "logits" not in self._caches
        model = self._live_reference().model if new else self.model
        itemsize = 2 if str(self.trainer.precision).endswith("-mixed") else next(model.parameters()).element_size()
        width = model.config.get_text_config().hidden_size * itemsize
        size = max(self._from_all(sum(row.labelled for row in self._asked(data, "logits")) * width))
        return FrozenHead.fits(model) and (self.reference_way == "cache" or size <= self.reference_cache_gb * 1e9)

    def _forget_caches(self) -> None:
        """Let go of what an earlier fit has computed, which does not serve this one."""
        self._reference, self._caches = self._kept_live(), {}
        if self._reference is None and self._given[0] is None:
            log.warning(
                "this fit draws rows that the one before did not, or has another precision: its reference is the model "
                "as it is now; with reference_way: weights it would have stayed that of the first fit"
            )

    def _kept_live(self) -> LiveReference | None:
        """Return what of the reference is no cache."""
        whole = self._reference
        parts = whole.parts.values() if isinstance(whole, SplitReference) else [whole]
        return next((part for part in parts if isinstance(part, LiveReference)), None)

    def _live_reference(self, keep: bool = True) -> LiveReference:
        """Return the model as it was at the start of the first fit or, where that is forgotten, as it is now.

        Args:
            keep: Whether it is asked after the first step, too.
        """
        if isinstance(self._reference, LiveReference):
            return self._reference
        if self._given[0] is None and not keep and not has_adapters(self.policy):
            return OriginalWeights(self.policy, keep=False)
        self._reference = self._make_reference()
        return self._reference

    def _make_caches(self, data: UnlearningDataModule, cached: set[ReferenceNeed]) -> Reference:
        """Compute what is to be cached, but for what an earlier fit has; what else is read stays live."""
        rows = {need: self._asked(data, need) for need in cached}
        # All or none, and on all processes: one reference has one start.
        if self._caches and not all(self._from_all(self._serve(rows))):
            self._forget_caches()
        parts: dict[ReferenceNeed, Reference] = {need: self._caches[need] for need in cached & self._caches.keys()}
        live = self._kinds() - cached
        self._reference = self._kept_live()
        if live or parts.keys() != cached:
            start = self._live_reference(keep=bool(live))
            start.convert(self.trainer.precision_plugin.convert_module)
            for need in sorted(cached - parts.keys()):  # in one order on all processes
                log.info("asking the reference about %d answers, once", len(rows[need]))
                made: CachedLogprobs | CachedStates
                if need == "logits":
                    made = self._compute_states(rows[need], start)
                else:
                    made = self._find_logprobs(rows[need], start, summed=need == "logprobs")
                parts[need] = self._caches[need] = made
            parts.update(dict.fromkeys(live, start))
        return SplitReference(parts) if len(parts) > 1 else next(iter(parts.values()))

    def _serve(self, rows: dict[ReferenceNeed, list[Example]]) -> bool:
        """Say whether the caches of an earlier fit have all the rows that this one asks for, as it would make them."""
        now = self._origin().items()
        return rows.keys() <= self._caches.keys() and all(
            self._caches[need].knows(self._batches(some)) and now <= self._caches[need].origin.items()
            for need, some in rows.items()
        )

    def _origin(self) -> dict[str, str]:
        """Return what numbers of a reference depend on, beside rows and weights."""
        return {"dtype": str(next(self.policy.parameters()).dtype), "precision": str(self.trainer.precision)}

    def _find_logprobs(self, rows: list[Example], start: LiveReference, summed: bool) -> CachedLogprobs:
        """Compute the log-probabilities of all rows, or take what the run that is resumed has computed."""
        trainer: Any = self.trainer
        values = "sums" if summed else "tokens"
        origin = {"weights": weights_digest(start), "values": values, **self._origin()}
        found = CachedLogprobs.read(Path(trainer.ckpt_path).parent.parent, summed) if trainer.ckpt_path else None
        fits = found is not None and found.origin == origin and found.knows(self._batches(rows))
        # The first process decides for all: a shard has a digest of its own, and the file may be on one machine.
        stored = trainer.strategy.broadcast(found.values if found is not None and fits else None)
        if stored is not None:
            return CachedLogprobs(stored, origin)
        if trainer.ckpt_path:
            log.info("the run that is resumed left no cached reference of these rows and weights; it is computed again")
        batches = list(self._batches(rows))
        mine = batches[trainer.global_rank :: trainer.world_size]
        with trainer.precision_plugin.forward_context():
            cache = CachedLogprobs.compute(start, self._in_step(mine), origin, summed)
        cache.values = {key: value for share in self._from_all(cache.values) for key, value in share.items()}
        if self.run_folder is not None and trainer.is_global_zero:
            cache.write(self.run_folder)
        return cache

    def _compute_states(self, rows: list[Example], start: LiveReference) -> CachedStates:
        """Compute the last hidden states of the rows that this process draws."""
        with self.trainer.precision_plugin.forward_context():
            return CachedStates.compute(start, self._in_step(list(self._batches(rows))), self.device, self._origin())

    def _batches(self, rows: Sequence[Example]) -> Iterator[Batch]:
        """Yield rows, those of about the same length together."""
        rows = sorted(rows, key=lambda row: len(row.input_ids))
        size = self._data().questions_per_batch
        for start in range(0, len(rows), size):
            yield collate(rows[start : start + size], pad_id=0)

    def _in_step(self, batches: list[Batch]) -> Iterator[Batch]:
        """Yield batches on the device, as many on each process: where the model is sharded all run it together."""
        most = max(self._from_all(len(batches)))
        fillers = [batches[-1] if batches else next(self._batches(self._data().examples(self._data().trained[0])))]
        for batch in batches + fillers * (most - len(batches)):
            yield batch.to(self.device)

    def _from_all(self, value: T) -> list[T]:
        """Return what each process has."""
        if self.trainer.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.trainer.world_size
        distributed.all_gather_object(values, value)
        return values
