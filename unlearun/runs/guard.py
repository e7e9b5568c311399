"""Stops a run that has lost its way, before it spoils what was reached."""

from __future__ import annotations

import logging
import math
from collections import deque
from statistics import median

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from unlearun.errors import UnlearunError, check_bounds
from unlearun.methods import UnlearningMethod
from unlearun.models import is_share, length
from unlearun.records.keeping import above_chance, chance_of
from unlearun.runs.checkpoint import find_checkpoint

log = logging.getLogger(__name__)

WATCHED = ("retain/probability", "model_utility")
ALSO_WATCHED = "/choice_accuracy"  # of retain and utility sets: all that is measured of some
CLEARLY_KNOWN = 0.15  # over guessing: of less the choice of rows may take most away
WINDOW = 20
# What README's troubleshooting table says of these two.
UNSTABLE = (
    "turn: --trainer.gradient_clip_val 1.0, --optimizer.lr down, a larger batch (--trainer.accumulate_grad_batches 4), "
    "--trainer.precision 32-true"
)
# And the argument that a method must have for it, if any.
COLLAPSED: tuple[tuple[str | None, str], ...] = (
    ("alpha", "--model.alpha up"),
    ("epsilon", "--model.epsilon down"),
    (None, "--trainer.max_epochs down, --optimizer.lr down"),
    ("retain_loss_type", "--model.retain_loss_type KL"),
)
MORE_ROWS = "; more, and more varied, retain rows"


class DivergenceError(UnlearunError):
    """A run that was stopped: its loss or gradient is no finite number, or what shall be kept is lost."""

    status = 3


class DivergenceGuard(Callback):
    """Stops a run whose loss or gradient is not finite, or in which what shall be kept collapses.

    The step that would spoil the weights is not taken, and the last good checkpoint stays. A gradient many times
    longer than those before is warned about.

    Args:
        floor: The run stops where the probability of the retain answers, model utility, or the choice_accuracy of a
            retain or utility set, if that was 0.4 at least and counted from the 0.25 of guessing, falls below this
            share of what it was at step 0; 0 lets it go on whatever happens.
        spike: A gradient so many times the median of the last 20 is warned about; 0 warns of none.
    """

    def __init__(self, floor: float = 0.3, spike: float = 10.0) -> None:
        check_bounds(floor=(floor, 0.0), spike=(spike, 0.0))
        if floor >= 1:
            raise UnlearunError(f"floor is {floor!r}, a share of the start; it must be below 1, and 0 switches it off")
        self.floor = floor
        self.spike = spike
        self.start: dict[str, float] = {}  # what was measured at step 0
        self._lengths: deque[float] = deque(maxlen=WINDOW)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at every step before it is taken."""
        self._lengths.clear()
        if isinstance(pl_module, UnlearningMethod):
            pl_module.watch_steps = self.check_step

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look no longer."""
        if isinstance(pl_module, UnlearningMethod):
            pl_module.watch_steps = None

    def check_step(self, method: UnlearningMethod, parts: dict[str, Tensor]) -> None:
        """Check the loss and the gradient of a step.

        Args:
            method: Its gradients are there, and the step is not taken yet.
            parts: The parts of the loss, of this process alone.

        Raises:
            DivergenceError: One of them is not finite.
        """
        trainer = method.trainer
        size = gradient_length(method)
        losses = {name: float(part) for name, part in parts.items()}
        broken = [f"{name} is {value}" for name, value in losses.items() if not math.isfinite(value)]
        # With a scaler some steps overflow, and are left out by it.
        if size is not None and not math.isfinite(size) and str(trainer.precision) != "16-mixed":
            broken.append(f"the gradient's length is {size}")
        if trainer.strategy.reduce_boolean_decision(bool(broken), all=False):
            what = ", ".join(broken) or "the loss of another process is not finite"
            raise DivergenceError(f"step {trainer.global_step + 1}: {what}; {_kept(trainer, method)}\n{UNSTABLE}")
        if size is not None and math.isfinite(size):
            self._note(size, trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare with step 0.

        Raises:
            DivergenceError: What shall be kept is lost.
        """
        evaluation = getattr(pl_module, "evaluation", None)
        if trainer.state.fn != "fit" or evaluation is None or not isinstance(pl_module, UnlearningMethod):
            return
        if trainer.sanity_checking:
            self.start = dict(evaluation.summary)
            return
        before = above_chance(self.start)
        found = {name: value for name, value in above_chance(evaluation.summary).items() if _is_watched(name)}
        for name, value in found.items():
            start, chance = before.get(name, math.nan), chance_of(name)
            had_something = math.isfinite(start) and (not chance or start >= CLEARLY_KNOWN)
            if not value >= self.floor * start and had_something and self.floor > 0:
                over = f", counted from the {chance:g} of guessing" if chance else ""
                raise DivergenceError(
                    f"{name} is {value + chance:.3g} at step {evaluation.step}, under {self.floor:g} of the "
                    f"{start + chance:.3g} at step 0{over}; {_kept(trainer)}\n{_advice(pl_module)}; --guard.floor 0 "
                    "lets a run go on"
                )

    def _note(self, size: float, trainer: Trainer) -> None:
        usual = median(self._lengths) if len(self._lengths) == WINDOW else 0.0
        if self.spike > 0 and usual > 0 and size > self.spike * usual and trainer.is_global_zero:
            log.warning(
                "step %d: the gradient is %.3g long, %.0f times the median of the last %d",
                *(trainer.global_step + 1, size, size / usual, WINDOW),
            )
        self._lengths.append(size)


def _is_watched(name: str) -> bool:
    return name in WATCHED or name.endswith(ALSO_WATCHED)


def _advice(method: UnlearningMethod) -> str:
    """Say what to turn where too much is lost, of what the method has."""
    turns = [turn for name, turn in COLLAPSED if name is None or (hasattr(method, name) and name not in method.fixed)]
    return f"turn: {', '.join(turns)}{MORE_ROWS if 'retain' in method.trained_sets else ''}"


@torch.no_grad()
def gradient_length(method: UnlearningMethod) -> float | None:
    """Return the length of the gradient of a step over all weights, or None where the strategy keeps it to itself.

    Args:
        method: Its gradients are there.
    """
    gradients = [weight.grad for weight in method.policy.parameters() if weight.grad is not None]
    if not gradients:
        return None
    return float(length(gradients))


def _kept(trainer: Trainer, method: UnlearningMethod | None = None) -> str:
    """Say where the last good weights are, written first where they are still in memory.

    Args:
        trainer: Its checkpoint is asked.
        method: Given where its weights are good as long as they are finite.
    """
    checkpoint = find_checkpoint(trainer)
    if checkpoint is None:
        return "the step was not taken, and no checkpoint is kept (enable_checkpointing)"
    finite = method is not None and all(bool(_here(weight).isfinite().all()) for weight in method.policy.parameters())
    if trainer.strategy.reduce_boolean_decision(finite):
        checkpoint.save_last_step(trainer)
    good = checkpoint.latest if finite else checkpoint.evaluated
    if good is None:
        return "the last good weights are those that the run began with"
    return f"the last good weights are in {good} (unlearun export CKPT DIR)"


def _here(weight: Tensor) -> Tensor:
    """Return what this process has of a weight."""
    return weight.to_local() if is_share(weight) else weight  # type: ignore[attr-defined]
