"""What a run leaves for people: its folder, tables and texts."""

from unlearun.records import Results
from unlearun.report.recorder import RunRecorder
from unlearun.report.run import (
    TRAINER_DEFAULTS,
    find_recorder,
    finish,
    quiet,
    run_arguments,
    run_folder,
    show,
    show_evaluation,
)
from unlearun.report.run_folder import OUTPUT_DIR, RunFolder, RunLogger

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
