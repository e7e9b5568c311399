"""What tasks of lm-evaluation-harness, such as MMLU, have found of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from unlearun.records.task_results import QUESTIONS, read_task_results
from unlearun.report.changes import Value
from unlearun.report.reported_run import ReportedRun

INTERVALS = "Intervals are 95%, over the questions, by the standard errors of lm-eval."
_WIDTH = 1.96  # standard errors to either side of a mean that leave out 5%
_SUFFIX = "_stderr"


class TaskRow(NamedTuple):
    """A metric of a task, as it was asked.

    Attributes:
        task: Its name.
        metric: Such as ``acc``.
        asked: How, in words.
        values: A value a run; None where it has none that was asked like this.
    """

    task: str
    metric: str
    asked: str
    values: list[Value | None]


def task_rows(runs: Sequence[ReportedRun]) -> list[TaskRow]:
    """Lay out what tasks have found, a row for each metric and each way in which a task was asked.

    Args:
        runs: The runs; most have no results.
    """
    rows: dict[tuple[str, str, str], list[Value | None]] = {}
    for at, run in enumerate(runs):
        for task, kept in read_task_results(run.folder).items():
            metrics = {name: value for name, value in kept["metrics"].items() if _is_number(value)}
            asked = how_asked(kept["settings"], metrics.get(QUESTIONS))
            for name, value in metrics.items():
                if name != QUESTIONS and not name.endswith(_SUFFIX):
                    half = _WIDTH * metrics[f"{name}{_SUFFIX}"] if f"{name}{_SUFFIX}" in metrics else float("nan")
                    row = rows.setdefault((task, name, asked), [None] * len(runs))
                    row[at] = Value(value, value - half, value + half)
    return [TaskRow(*key, values) for key, values in sorted(rows.items(), key=lambda one: one[0])]


def how_asked(settings: Mapping[str, Any], questions: float | None) -> str:
    """Say how a task was asked, as far as that changes what is found.

    Args:
        settings: As they stand in ``lm_eval.json``.
        questions: How many there were.

    >>> how_asked({"dtype": "float32", "num_fewshot": 5, "random_seed": 0, "chat": True, "lm-eval": "0.4.13"}, 100.0)
    '100 questions, 5 examples before each (seed 0), through the chat template, float32, lm-eval 0.4.13'
    """
    shots = settings.get("num_fewshot")
    examples = "1 example" if shots == 1 else f"{shots} examples"
    words = [
        f"{questions:.0f} questions" if questions is not None else "",
        f"{examples} before each (seed {settings.get('random_seed', 0)})" if shots is not None else "",
        "through the chat template" if settings.get("chat") else "",
        str(settings.get("dtype") or ""),
        f"lm-eval {settings['lm-eval']}" if settings.get("lm-eval") else "",
    ]
    return ", ".join(word for word in words if word)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
