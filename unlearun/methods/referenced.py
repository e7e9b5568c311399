"""How a method keeps the frozen model that its loss compares with.

Shapes: B rows.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from torch import distributed

from unlearun.data import Batch, UnlearningDataModule, collate
from unlearun.errors import UnlearunError, check_choice
from unlearun.methods.evaluated import EvaluatedModule
from unlearun.models import (
    CachedLogprobs,
    FrozenCopy,
    LiveReference,
    ModelLike,
    OriginalWeights,
    Reference,
    load_model,
    weights_digest,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

ReferenceNeed: TypeAlias = Literal["logprobs", "logits", "hidden"]
ReferenceWay: TypeAlias = Literal["auto", "cache", "weights", "copy"]
WAYS = ("auto", "cache", "weights", "copy")


class ReferencedModule(EvaluatedModule):
    """A module with a reference: the model as it was at the start, or another, kept in the cheapest exact way.

    Args:
        reference: The frozen model. None: the model as it is at the start.
        reference_way: "cache", "weights", "copy" or "auto"; see `UnlearningMethod`.

    Attributes:
        run_folder: Where a cache is written, if anywhere.
    """

    dtype_name: str

    def __init__(self, reference: ModelLike | None, reference_way: ReferenceWay) -> None:
        super().__init__()
        check_choice("reference_way", reference_way, WAYS)
        self.reference_way = reference_way
        self.run_folder: Path | None = None
        self._given_reference = reference
        self._reference: Reference | None = None

    @property
    def model(self) -> PreTrainedModel:
        """The transformers model inside."""
        raise NotImplementedError

    @property
    def reference_needs(self) -> frozenset[ReferenceNeed]:
        """What the loss reads of the frozen model."""
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
        """Bring the reference to the device and precision of the run, and replace it by a cache where that will do.

        Raises:
            UnlearunError: A cache was asked for, and the loss reads more than log-probabilities.
        """
        if not self.needs_reference:
            return
        if self.reference_way == "cache" and not self._can_cache():
            raise UnlearunError(
                f"reference_way is 'cache', which holds log-probabilities of the rows of an UnlearningDataModule; the "
                f"loss of {type(self).__name__} reads {' and '.join(sorted(self.reference_needs))}: use auto"
            )
        if self._can_cache():
            self._reference = self._find_cache(self._data())
        else:
            if isinstance(self._reference, CachedLogprobs):  # of an earlier fit, which does not know this one's rows
                self._reference = None
            self.reference.convert(self.trainer.precision_plugin.convert_module)
        log.info("reference: %s", self.reference.describe())

    def release_reference(self) -> None:
        """Free the device of the reference."""
        if self._reference is not None:
            self._reference.convert(lambda module: module.cpu())

    # ---- inside ---------------------------------------------------------------------------------------------

    def _make_reference(self) -> LiveReference:
        given = self._given_reference
        if isinstance(given, str):
            return FrozenCopy(load_model(given, self.dtype_name), copy=False)
        if given is not None:
            return FrozenCopy(given)
        return FrozenCopy(self.model) if self.reference_way == "copy" else OriginalWeights(self.policy)

    def _can_cache(self) -> bool:
        """Say whether log-probabilities of known rows are all that the loss reads."""
        known = isinstance(getattr(self._trainer, "datamodule", None), UnlearningDataModule)
        return known and self.reference_needs == {"logprobs"} and self.reference_way in ("auto", "cache")

    def _find_cache(self, data: UnlearningDataModule) -> Reference:
        """Compute S_ref of all forget rows, or take what the run that is resumed has computed."""
        trainer: Any = self.trainer
        start = self._reference
        if isinstance(start, CachedLogprobs) and start.knows(self._forget_batches(data)):
            return start  # of an earlier fit; of other rows, this fit has its own start
        if not isinstance(start, LiveReference):
            given = self._given_reference is not None
            start = self._make_reference() if given else OriginalWeights(self.policy, keep=False)
        start.convert(trainer.precision_plugin.convert_module)
        dtype = str(next(self.policy.parameters()).dtype)
        origin = {"weights": weights_digest(start), "dtype": dtype, "precision": str(trainer.precision)}
        found = CachedLogprobs.read(Path(trainer.ckpt_path).parent.parent) if trainer.ckpt_path else None
        fits = found is not None and found.origin == origin and found.knows(self._forget_batches(data))
        # The first process decides for all: a shard has a digest of its own, and the file may be on one machine.
        stored = trainer.strategy.broadcast(found.values if found is not None and fits else None)
        if stored is not None:
            return CachedLogprobs(stored, origin)
        if trainer.ckpt_path:
            log.info("the run that is resumed left no cached reference of these rows and weights; it is computed again")
        with trainer.precision_plugin.forward_context():
            cache = CachedLogprobs.compute(start, self._mine(self._forget_batches(data)), origin)
        cache.values = {key: value for share in self._shares(cache.values) for key, value in share.items()}
        if self.run_folder is not None and trainer.is_global_zero:
            cache.write(self.run_folder)
        return cache

    def _forget_batches(self, data: UnlearningDataModule) -> Iterator[Batch]:
        """Yield the forget rows and their alternates, those of about the same length together."""
        rows = [*data.examples("forget"), *(data.alternates() or [])]
        rows.sort(key=lambda row: len(row.input_ids))
        for start in range(0, len(rows), data.questions_per_batch):
            yield collate(rows[start : start + data.questions_per_batch], pad_id=0)

    def _mine(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Yield this process's share of some batches, on its device."""
        for number, batch in enumerate(batches):
            if number % self.trainer.world_size == self.trainer.global_rank:
                yield batch.to(self.device)

    def _shares(self, values: dict[int, float]) -> list[dict[int, float]]:
        """Return what each process has computed."""
        if self.trainer.world_size == 1:
            return [values]
        shares: list[Any] = [None] * self.trainer.world_size
        distributed.all_gather_object(shares, values)
        return shares
