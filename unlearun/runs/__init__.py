"""How a run starts, goes and ends: its folder, and what fills it."""

from unlearun.records import Results
from unlearun.runs.recorder import RunRecorder
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

__all__ = [
    "OUTPUT_DIR",
    "TRAINER_DEFAULTS",
    "Results",
    "RunFolder",
    "RunLogger",
    "RunRecorder",
    "find_recorder",
    "finish",
    "quiet",
    "run_arguments",
    "run_folder",
    "show",
    "show_evaluation",
]
