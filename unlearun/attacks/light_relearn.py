"""A light attack while a model unlearns: curves of how robust it becomes, and not only of what it has forgotten."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy

from unlearun.data import Batch, UnlearningDataModule, collate
from unlearun.errors import UnlearunError, check_bounds
from unlearun.methods import UnlearningMethod
from unlearun.metrics import ExtractionStrength, Probability
from unlearun.models import Policy
from unlearun.records import LEAST_FORGOTTEN

log = logging.getLogger(__name__)

NAMES = ("extraction_strength", "probability")


class LightRelearn(Callback):
    """Every so many steps, lets the model relearn a few forget rows, measures what comes back of others, and undoes it.

    What it finds is logged under ``attack/``: ``extraction_strength`` and ``probability`` of rows that were not
    relearnt, and ``recovered``, the share of what was forgotten of them that came back, once 0.05 of their extraction
    strength is forgotten. The run itself goes on as if nothing had happened. It relearns with what the run trains:
    adapters, or RMU's few matrices.

    Args:
        every_n_steps: So many optimizer steps apart, and at the last.
        steps: How many steps it relearns for, on all relearnt rows at once.
        learning_rate: Of AdamW.
        share: Which share of the rows is relearnt.
        max_rows: At most so many forget rows take part, relearnt ones included.
        seed: What the rows are drawn by.

    Raises:
        UnlearunError: A number is out of range.
    """

    def __init__(
        self,
        every_n_steps: int = 20,
        steps: int = 5,
        learning_rate: float = 1e-4,
        share: float = 0.2,
        max_rows: int = 64,
        seed: int = 0,
    ) -> None:
        check_bounds(
            every_n_steps=(every_n_steps, 1),
            steps=(steps, 1),
            learning_rate=(learning_rate, 0.0),
            max_rows=(max_rows, 2),
            seed=(seed, 0),
        )
        if not 0 < share < 1:
            raise UnlearunError(f"share is {share}; it must be above 0 and below 1")
        self.every_n_steps = every_n_steps
        self.steps = steps
        self.learning_rate = learning_rate
        self.share = share
        self.max_rows = max_rows
        self.seed = seed
        self.points: list[dict[str, float]] = []
        self._start: tuple[float, float] | None = None
        self._rows: tuple[Batch, Batch] | None = None
        self._goes_on = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose the rows, and check that weights are whole in every process.

        Raises:
            UnlearunError: The strategy spreads them, the model or the data are none of ours, or rows are too few.
        """
        if not isinstance(pl_module, UnlearningMethod) or not pl_module.has_forget_term:
            raise UnlearunError("LightRelearn is for a method of unlearun that forgets")
        if type(pl_module).finish is not UnlearningMethod.finish:
            raise UnlearunError(
                f"LightRelearn attacks weights on their way, which of {type(pl_module).__name__} are made at the end "
                "alone; attack the run when it has ended: unlearun attack RUN"
            )
        if not isinstance(trainer.strategy, (SingleDeviceStrategy, DDPStrategy)):
            raise UnlearunError(
                f"LightRelearn needs all weights in each process, which {type(trainer.strategy).__name__} spreads; "
                "use one device or ddp, or attack the run when it has ended: unlearun attack RUN"
            )
        if not self._goes_on:
            self.points, self._start = [], None
        self._rows, self._goes_on = self._choose(trainer), False

    def state_dict(self) -> dict[str, Any]:
        """Return what was found so far, and what was known at the start, for a run that goes on."""
        return {"points": list(self.points), "start": self._start}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what the run that goes on has found; what was known at its start is not measured again."""
        start = state_dict["start"]
        self.points = [dict(point) for point in state_dict["points"]]
        self._start = None if start is None else (float(start[0]), float(start[1]))
        self._goes_on = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure what is known of the rows."""
        if self._rows is None or not isinstance(pl_module, UnlearningMethod):
            return
        relearnt, measured = self._rows
        self._rows = relearnt.to(pl_module.device), measured.to(pl_module.device)
        if self._start is None:
            self._start = self._measure(trainer, pl_module.policy)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Attack, when it is time."""
        if trainer.fit_loop._should_accumulate() or not isinstance(pl_module, UnlearningMethod):
            return
        last = trainer.global_step >= trainer.estimated_stepping_batches
        if trainer.global_step % self.every_n_steps and not last:
            return
        before = self._measure(trainer, pl_module.policy)
        with _undone(pl_module.policy):
            self._relearn(trainer, pl_module.policy)
            after = self._measure(trainer, pl_module.policy)
        found = dict(zip(NAMES, after, strict=True))
        forgotten = math.nan if self._start is None else self._start[0] - before[0]
        if forgotten >= LEAST_FORGOTTEN:
            found["recovered"] = min(max((after[0] - before[0]) / forgotten, 0.0), 1.0)
        self.points.append({"step": trainer.global_step, **found})
        for logger in trainer.loggers:
            named = {f"attack/{name}": value for name, value in found.items()}
            logger.log_metrics(named, step=trainer.global_step)

    def _choose(self, trainer: Trainer) -> tuple[Batch, Batch]:
        """Return the rows that are relearnt, and those that are measured."""
        data: Any = getattr(trainer, "datamodule", None)
        if not isinstance(data, UnlearningDataModule):
            raise UnlearunError("LightRelearn needs an UnlearningDataModule; give it to the Trainer")
        rows = data.examples("forget")
        drawn = random.Random(self.seed).sample(range(len(rows)), min(len(rows), self.max_rows))
        count = max(1, round(self.share * len(drawn)))
        if count >= len(drawn):
            raise UnlearunError(f"LightRelearn needs at least 2 forget rows, found {len(drawn)}")
        relearnt, measured = ([rows[i] for i in some] for some in (drawn[:count], drawn[count:]))
        return collate(relearnt, data.pad_id), collate(measured, data.pad_id)

    def _relearn(self, trainer: Trainer, policy: Policy) -> None:
        if self._rows is None:
            return
        weights = [weight for weight in policy.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(weights, lr=self.learning_rate)
        rows = self._rows[0]
        for _ in range(self.steps):
            with _forward(trainer):
                loss = -policy(rows, "logprobs").sum() / rows.token_count
            # Not backward(): gradients of several processes would be averaged on the way, and all have the same.
            gradients = torch.autograd.grad(loss, weights, allow_unused=True)
            for weight, gradient in zip(weights, gradients, strict=True):
                weight.grad = gradient
            optimizer.step()

    @torch.no_grad()
    def _measure(self, trainer: Trainer, policy: Policy) -> tuple[float, float]:
        """Return the two metrics of the rows that are not relearnt."""
        if self._rows is None:
            return math.nan, math.nan
        rows, was_training = self._rows[1], policy.training
        policy.eval()
        try:
            metrics = [ExtractionStrength(), Probability()]
            for some in rows.split(len(self._rows[0])):
                with _forward(trainer):
                    stats = policy(some, "stats")
                for metric in metrics:
                    metric.to(rows.labels.device).update(stats, some)
        finally:
            policy.train(was_training)
        values = []
        for metric in metrics:
            metric.sync_on_compute = False  # every process has measured all of it
            values.append(float(metric.compute()))
        return values[0], values[1]


def _forward(trainer: Trainer) -> Any:  # noqa: ANN401 - Lightning's context
    return trainer.strategy.precision_plugin.forward_context()


@contextmanager
def _undone(policy: Policy) -> Iterator[None]:
    """Bring weights, gradients, and what random numbers follow from, back to what they were."""
    weights = [weight for weight in policy.parameters() if weight.requires_grad]
    kept = [(weight, weight.detach().clone(), weight.grad) for weight in weights]
    devices = [weights[0].device] if weights and weights[0].device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        with torch.no_grad():
            for weight, before, gradient in kept:
                weight.copy_(before)
                weight.grad = gradient
