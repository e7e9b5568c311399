"""Where a run folder keeps its evaluations: ``eval/step=N.json``, one a step at which it was evaluated."""

from __future__ import annotations

from pathlib import Path

from unlearun.errors import UnlearunError


def evaluation_file(run: Path, step: int) -> Path:
    """Return where a run's evaluation at a step is, or will be.

    Args:
        run: The run folder.
        step: 0 before training.
    """
    return run / "eval" / f"step={step}.json"


def evaluation_files(run: Path) -> dict[int, Path]:
    """Return the files of a run's evaluations by step, the first step first.

    Args:
        run: The run folder, or any other path, which has none.
    """
    named = {file.stem.removeprefix("step="): file for file in (run / "eval").glob("step=*.json")}
    return dict(sorted((int(step), file) for step, file in named.items() if step.isdecimal()))


def last_evaluation(run: Path) -> Path:
    """Return the file of a run's last evaluation.

    Args:
        run: The run folder.

    Raises:
        UnlearunError: It holds none.
    """
    files = evaluation_files(run)
    if not files:
        raise UnlearunError(f"{run} is no run folder with evaluations: it holds no eval/step=N.json")
    return files[max(files)]
