"""What a run has found of its model before any attack: its first and its last evaluation."""

from __future__ import annotations

from pathlib import Path

from unlearun.records import Evaluation, evaluation_files


def found_at_the_end(run: Path) -> Evaluation | None:
    """Return what was found at the end of a run; None where its last evaluation is not one of all metrics.

    Args:
        run: A run folder, or any other name of a model.
    """
    files = evaluation_files(run)
    last = Evaluation.read(files[max(files)]) if files else None
    return last if last is not None and last.intervals else None


def found_at_the_start(run: Path) -> Evaluation | None:
    """Return what was found before the first step of a run; None where that was not measured.

    Args:
        run: A run folder, or any other name of a model.
    """
    files = evaluation_files(run)
    return Evaluation.read(files[0]) if 0 in files else None
