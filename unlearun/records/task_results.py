"""What tasks of lm-evaluation-harness have found of a run, as a file of its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from unlearun.files import write_whole

FILE = "lm_eval.json"
QUESTIONS = "questions"  # stands among the metrics: how many there were


def read_task_results(folder: Path) -> dict[str, dict[str, Any]]:
    """Return what tasks of the harness have found of a run.

    Args:
        folder: Of the run.

    Returns:
        For each task ``metrics`` and the ``settings`` it ran with; nothing where none has run, or the file cannot be
        read.
    """
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {
        task: kept
        for task, kept in found.items()
        if isinstance(kept, dict) and isinstance(kept.get("metrics"), dict) and isinstance(kept.get("settings"), dict)
    }


def add_task_results(folder: Path, results: dict[str, dict[str, Any]]) -> None:
    """Put results into the file; a task that was run before stays, unless it has run again.

    Args:
        folder: Of the run.
        results: As `read_task_results` returns them.
    """
    write_whole(folder / FILE, json.dumps({**read_task_results(folder), **results}, indent=1) + "\n")
