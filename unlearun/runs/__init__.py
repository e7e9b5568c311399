"""How a run starts, goes and ends: its folder, and what fills it."""

from unlearun.records import Results
from unlearun.runs.checkpoint import RunCheckpoint
from unlearun.runs.guard import DivergenceError, DivergenceGuard
from unlearun.runs.recorder import RunRecorder
from unlearun.runs.resume import check_run, differences, find_run, is_finished, newest_checkpoint, read_config
from unlearun.runs.run import (
    TRAINER_DEFAULTS,
    find_recorder,
    finish,
    quiet,
    run_arguments,
    run_folder,
    show,
    show_evaluation,
)
from unlearun.runs.run_folder import OUTPUT_DIR, RunFolder, RunLogger
from unlearun.runs.settings import check_seed, interruptible, making_trainer, running_trainer
from unlearun.runs.termination import ended_by_sigterm

__all__ = [
    "OUTPUT_DIR",
    "TRAINER_DEFAULTS",
    "DivergenceError",
    "DivergenceGuard",
    "Results",
    "RunCheckpoint",
    "RunFolder",
    "RunLogger",
    "RunRecorder",
    "check_run",
    "check_seed",
    "differences",
    "ended_by_sigterm",
    "find_recorder",
    "find_run",
    "finish",
    "interruptible",
    "is_finished",
    "making_trainer",
    "newest_checkpoint",
    "quiet",
    "read_config",
    "run_arguments",
    "run_folder",
    "running_trainer",
    "show",
    "show_evaluation",
]
