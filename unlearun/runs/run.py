"""How a run starts and ends: both doors, the command and the Python class, go through here."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning_utilities.core.rank_zero import rank_zero_only

from unlearun.data import UnlearningDataModule
from unlearun.methods import UnlearningMethod
from unlearun.records.results import Results
from unlearun.report import write_report
from unlearun.runs.checkpoint import RunCheckpoint
from unlearun.runs.guard import DivergenceGuard
from unlearun.runs.recorder import RunRecorder
from unlearun.runs.run_folder import RunFolder, RunLogger
from unlearun.runs.same_run import check_method, check_start
from unlearun.runs.settings import check_settings
from unlearun.terminal import say

log = logging.getLogger(__name__)

# What the Trainer gets unless the user says otherwise, through either door.
TRAINER_DEFAULTS: dict[str, Any] = {"max_epochs": 5, "log_every_n_steps": 1}


def run_arguments(
    config: Mapping[str, Any],
    root: str | Path,
    method: UnlearningMethod,
    write_config: Callable[[Path], None] | None = None,
    existing: Path | None = None,
) -> dict[str, Any]:
    """Complete the arguments of a Trainer: a run folder and what fills it, a guard, and a logger if none is given.

    Args:
        config: The arguments that the user gave.
        root: The folder of all runs.
        method: What will run, for the folder's name.
        write_config: Writes ``config.yaml`` into the folder given.
        existing: The run folder, where a run goes on; None: a new one.

    Returns:
        Arguments that replace those given.

    Raises:
        UnlearunError: The Trainer would make no sense of one of them, or the run that goes on is of another method.
    """
    check_settings(config)
    if existing is not None:
        check_method(existing, method)
        check_start(existing, method)
    folder = None if config.get("fast_dev_run") else RunFolder(root, type(method).__name__.lower(), existing)
    callbacks = config.get("callbacks") or []
    callbacks = [*callbacks] if isinstance(callbacks, (list, tuple)) else [callbacks]
    guards = [callback for callback in callbacks if isinstance(callback, DivergenceGuard)] or [DivergenceGuard()]
    callbacks = [callback for callback in callbacks if not isinstance(callback, DivergenceGuard)]
    # The guard stands behind the recorder: what it stops for is written by then.
    callbacks += [RunRecorder(folder, write_config), guards[0]]
    if config.get("enable_checkpointing") is not False and not any(isinstance(one, RunCheckpoint) for one in callbacks):
        others = any(isinstance(callback, Checkpoint) for callback in callbacks)
        callbacks.append(RunCheckpoint(only_at_end=others))
    completed: dict[str, Any] = {"callbacks": callbacks}
    every = config.get("val_check_interval")
    if isinstance(every, int) and not isinstance(every, bool) and config.get("check_val_every_n_epoch", 1) == 1:
        completed["check_val_every_n_epoch"] = None  # every so many batches, across epochs
    if folder is not None and config.get("logger") in (None, True):
        completed["logger"] = RunLogger(folder)
    return completed


def finish(trainer: Trainer, method: UnlearningMethod, data: UnlearningDataModule) -> None:
    """Print what a finished fit has done; evaluates first where the last steps have not been.

    Args:
        trainer: It has just run fit.
        method: What it ran.
        data: What it ran on.
    """
    recorder = find_recorder(trainer)
    if recorder is None or trainer.fast_dev_run:  # type: ignore[attr-defined]
        return
    recorder.save(trainer, method)  # a run that goes on behind its last step trains no more
    last = recorder.last
    if last is None or last.step < trainer.global_step or not method.evaluated_fully:
        try:
            trainer.validate(method, datamodule=data, verbose=False)
        except Exception:  # of a metric, say; whoever ends it from outside lets it go on from its checkpoint
            recorder.show_model(trainer)
            raise
    recorder.show_model(trainer)
    recorder.close()
    show(trainer, recorder.summary(), _report(trainer, recorder))


def show_evaluation(trainer: Trainer, method: UnlearningMethod) -> None:
    """Print what a validation or test has found."""
    if method.evaluation is not None:
        show(trainer, str(Results.of(method.evaluation)))


def _report(trainer: Trainer, recorder: RunRecorder) -> str:
    """Write the report of a run, on rank 0, and say where; a run whose report fails has not failed."""
    if recorder.folder is None or not trainer.is_global_zero:
        return ""
    for logger in trainer.loggers:
        logger.save()  # what its curves are made of may not be on the disk yet
    try:
        page = write_report([recorder.folder])
    except Exception as error:  # hours of work are safe in the folder by now
        log.warning(
            "the report could not be written (%s: %s); try again with unlearun report %s",
            *(type(error).__name__, error, recorder.folder),
        )
        return ""
    return f"\nreport: {page}"


def show(trainer: Trainer, text: str, further: str = "") -> None:
    """Print a result and where the run folder is, on rank 0.

    Args:
        trainer: Has the recorder.
        text: The result.
        further: What is said at the end.
    """
    recorder = find_recorder(trainer)
    if trainer.is_global_zero:
        where = f"\n\nrun folder: {recorder.folder}" if recorder is not None and recorder.folder is not None else ""
        where += further
        say(f"\n{text}{where}")


def find_recorder(trainer: Trainer) -> RunRecorder | None:
    """Return the Trainer's recorder, if it has one."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    return next((callback for callback in callbacks if isinstance(callback, RunRecorder)), None)


def run_folder(trainer: Trainer) -> Path | None:
    """Return the run folder of a Trainer, if it has one."""
    recorder = find_recorder(trainer)
    return recorder.folder if recorder is not None else None


class _Told(logging.Handler):
    """Prints to whatever stderr is at the time: what was chosen, by the first process alone, and warnings."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one message."""
        if record.levelno >= logging.WARNING or getattr(rank_zero_only, "rank", 0) == 0:
            print(self.format(record), file=sys.stderr)  # noqa: T201 - messages for people


@cache
def quiet() -> None:
    """Keep away what libraries tell of themselves and users cannot act on, and show what ours says it has chosen.

    A program that has set up logging for itself, or for ours, is left alone.
    """
    ours = logging.getLogger("unlearun")
    if not ours.handlers and not logging.getLogger().handlers:
        ours.addHandler(_Told())
        ours.setLevel(logging.INFO)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for pattern in (
        r"LightningCLI's args parameter is intended.*",
        r".*does not have many workers.*",
        r".*Checkpoint directory .* exists and is not empty.*",
        r".*The `srun` command is available.*",
        r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*",
        r".*Starting from v.*, `tensorboardX` has been removed.*",
    ):
        warnings.filterwarnings("ignore", message=pattern)
    # peft imports it wherever it is installed, 4 bits or not, and its CPU kernels are one way of several.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: "litlogger" not in record.getMessage().lower() and "💡" not in record.getMessage()
    )
