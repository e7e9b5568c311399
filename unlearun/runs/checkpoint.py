"""The checkpoint that a run goes on from."""

from __future__ import annotations

import logging
import shutil
import time
from copy import deepcopy
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from unlearun.errors import Terminated, check_bounds
from unlearun.methods import UnlearningMethod
from unlearun.runs.checkpoint_io import WholeCheckpointIO
from unlearun.runs.random_state import from_all, random_state, restore_random_state
from unlearun.runs.resume import newest_checkpoint
from unlearun.runs.same_run import check_optimizer, optimizer_settings
from unlearun.runs.termination import Termination

log = logging.getLogger(__name__)

KEY = "unlearun_place"
MINUTES = 15.0


class RunCheckpoint(Checkpoint):
    """Keeps a checkpoint of all that a run needs to go on as if it had never stopped.

    It is written at the end of an epoch, every so many minutes in between, and when the process is told to end; older
    ones are removed once the new one is whole, but the last one that was evaluated not before the next is.

    Args:
        minutes: The longest time between two of them, in minutes.
        only_at_end: Whether it is written when the process is told to end and else never: other callbacks do.

    Attributes:
        folder: Where they are written; the recorder of the run says so.
        latest: The newest, if there is one.
        evaluated: The newest whose weights an evaluation has found to be good, if there is one.
    """

    def __init__(self, minutes: float = MINUTES, only_at_end: bool = False) -> None:
        check_bounds(minutes=(minutes, 0.0))
        self.minutes = minutes
        self.only_at_end = only_at_end
        self.folder: Path | None = None
        self.latest: Path | None = None
        self.evaluated: Path | None = None
        self._saved_step = 0
        self._evaluated_step: int | None = None
        self._saved_at = time.monotonic()
        self._step: dict[str, Any] | None = None  # where the run stood when the last optimizer step was done
        self._evaluates = False
        self._within = False
        self._going_on: dict[str, Any] | None = None
        self._termination = Termination()

    # ---- where a run is ------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let every checkpoint of the run, this or another, be written whole."""
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = WholeCheckpointIO()
        self._step, self._going_on, self._evaluates = None, None, False

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the random states and, within a step or an evaluation, where the run stood before it."""
        own = random_state()
        if self._within and self._step is not None:
            checkpoint["loops"]["fit_loop"], own = self._step["loop"], self._step["random"]
        checkpoint[KEY] = {"random": from_all(trainer, own), "evaluate": self._evaluates}
        if isinstance(pl_module, UnlearningMethod):
            checkpoint[KEY]["optimizer"] = optimizer_settings(pl_module)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Note what is to be restored once training starts.

        Raises:
            UnlearunError: A fit would go on with another optimizer than it was given.
        """
        self._going_on = checkpoint.get(KEY)
        stored = (self._going_on or {}).get("optimizer")
        if stored is not None and trainer.state.fn == "fit" and isinstance(pl_module, UnlearningMethod):
            check_optimizer(stored, pl_module)
        if trainer.ckpt_path and self.folder is not None and Path(trainer.ckpt_path).parent == self.folder:
            self.latest = Path(trainer.ckpt_path)
            self._saved_step = int(checkpoint["global_step"])
            self.evaluated = newest_checkpoint(self.folder.parent, evaluated=True)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make up for the evaluation that was broken off, if any, and draw on as the run did."""
        self._termination.watch()
        self._saved_at = time.monotonic()
        left, self._going_on = self._going_on, None
        if left is None:
            return
        if left["evaluate"]:
            loop = trainer.fit_loop.epoch_loop.val_loop
            loop.restarting = False
            trainer.validating = True
            loop.run()
            trainer.training = True
        restore_random_state(trainer, left["random"])

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Watch for the word to end from here on: what comes before leaves nothing to keep."""
        self._termination.watch()

    # ---- when it is written --------------------------------------------------------------------------------

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Note where the run is after an optimizer step, and write that down when it is time."""
        if trainer.fit_loop._should_accumulate() or self.folder is None:
            return  # gradients that are half there are in no checkpoint
        self._step = {"loop": deepcopy(trainer.fit_loop.state_dict()), "random": random_state()}
        late = time.monotonic() - self._saved_at > 60 * self.minutes
        if not self.only_at_end and trainer.strategy.reduce_boolean_decision(late, all=False):
            self._save(trainer, evaluated=False)

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """End here if the process was told to."""
        self._end_if_due(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the epoch's checkpoint, its evaluation done if it has one; end if the process was told to."""
        if not self.only_at_end:
            self._save(trainer, evaluated=self._evaluated_step == trainer.global_step)
        self._end_if_due(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that what comes is to be done again if it is broken off."""
        self._termination.watch()
        self._evaluates = trainer.state.fn == "fit" and not trainer.sanity_checking
        self._end_if_due(trainer)

    def on_validation_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """End here if the process was told to."""
        self._end_if_due(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that the evaluation is done."""
        self._evaluates = False
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._evaluated_step = trainer.global_step

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See `on_validation_start`."""
        self._termination.watch()

    def on_test_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """End here if the process was told to."""
        self._end_if_due(trainer)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See `on_validation_start`."""
        self._termination.watch()

    def on_predict_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """End here if the process was told to."""
        self._end_if_due(trainer)

    def holds(self, trainer: Trainer) -> bool:
        """Say whether the newest checkpoint is of the last step that was taken.

        Args:
            trainer: That has trained.
        """
        return self.latest is not None and self._saved_step == trainer.global_step

    def save_last_step(self, trainer: Trainer) -> None:
        """Write down the last optimizer step that was taken, from within the next one or an evaluation.

        Args:
            trainer: All its processes do so.
        """
        self._within = True
        try:
            self._save(trainer, evaluated=False)
        finally:
            self._within = False

    # ---- inside --------------------------------------------------------------------------------------------

    def _end_if_due(self, trainer: Trainer) -> None:
        if not self._termination.is_due(trainer):
            return
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self.save_last_step(trainer)
            if self.latest is not None and trainer.is_global_zero:
                log.warning("told to end; the last step is kept, and --resume %s goes on", self.latest.parent.parent)
        raise Terminated

    def _save(self, trainer: Trainer, evaluated: bool) -> None:
        step = trainer.global_step
        if self.folder is None or trainer.fast_dev_run or step == 0:  # type: ignore[attr-defined]
            return
        if step != self._saved_step:
            name = f"epoch={trainer.current_epoch}-step={step}.ckpt"
            unfinished = self.folder / f".{name}"  # a strategy may write a folder, file by file
            trainer.save_checkpoint(unfinished, weights_only=False)  # the optimizer, too
            before, self.latest = self.latest, self.folder / name
            self._replace(trainer, before, unfinished)
            self._saved_step, self._saved_at = step, time.monotonic()
        if evaluated and self.evaluated != self.latest:
            before, self.evaluated = self.evaluated, self.latest
            self._replace(trainer, before)

    def _replace(self, trainer: Trainer, before: Path | None, unfinished: Path | None = None) -> None:
        """Give a checkpoint that is whole its name, and remove the one before unless it is still good for something."""
        if trainer.is_global_zero:
            if unfinished is not None and self.latest is not None:
                unfinished.rename(self.latest)
            if before is not None and before not in (self.latest, self.evaluated):
                remove(before)
        trainer.strategy.barrier("checkpoint")


def find_checkpoint(trainer: Trainer) -> RunCheckpoint | None:
    """Return the callback of a Trainer that keeps the checkpoint to go on from, if it has one."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    return next((callback for callback in callbacks if isinstance(callback, RunCheckpoint)), None)


def remove(checkpoint: Path) -> None:
    """Remove a checkpoint, a file or a folder of shards, if it is there.

    Args:
        checkpoint: Which.
    """
    if checkpoint.is_dir():
        hidden = checkpoint.with_name(f".{checkpoint.name}.old")  # half removed it would be taken for the newest
        shutil.rmtree(hidden, ignore_errors=True)
        checkpoint.rename(hidden)
        shutil.rmtree(hidden, ignore_errors=True)
    else:
        checkpoint.unlink(missing_ok=True)
