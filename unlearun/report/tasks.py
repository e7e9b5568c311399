"""What tasks of lm-evaluation-harness, such as MMLU, have found of runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from unlearun.records.task_results import QUESTIONS, read_task_results
from unlearun.report.changes import Value
from unlearun.report.reported_run import ReportedRun

INTERVALS = "Intervals are 95%, over the questions: Wilson's of shares, else by the standard errors of lm-eval."
_WIDTH = 1.96  # standard errors to either side of a mean that leave out 5%
_SUFFIX = "_stderr"
_SHARES = ("acc", "acc_norm", "exact_match")  # metrics that are a share of questions


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
                    row = rows.setdefault((task, name, asked), [None] * len(runs))
                    row[at] = Value(value, *_interval(name, value, metrics))
    return [TaskRow(*key, values) for key, values in sorted(rows.items(), key=lambda one: one[0])]


def how_asked(settings: Mapping[str, Any], questions: float | None) -> str:
    """Say how a task was asked, as far as that changes what is found.

    Args:
        settings: As they stand in ``lm_eval.json``.
        questions: How many there were.

    >>> how_asked({"dtype": "float32", "num_fewshot": 5, "random_seed": 0, "chat": True, "lm-eval": "0.4.13"}, 100.0)
    '100 questions, 5 examples before each (seed 0), through the chat template, float32, lm-eval 0.4.13'
    >>> how_asked({"dtype": "float32", "limit": 5, "tokenizer": "gpt2"}, None)
    'at most 5 questions a task, float32, with the tokenizer of gpt2'
    """
    shots = settings.get("num_fewshot")
    examples = "1 example" if shots == 1 else f"{shots} examples"
    words = [
        f"{questions:.0f} questions" if questions is not None else _limited(settings.get("limit")),
        f"{examples} before each (seed {settings.get('random_seed', 0)})" if shots is not None else "",
        "through the chat template" if settings.get("chat") else "",
        str(settings.get("dtype") or ""),
        f"with the tokenizer of {_without_place(settings['tokenizer'])}" if settings.get("tokenizer") else "",
        f"lm-eval {settings['lm-eval']}" if settings.get("lm-eval") else "",
    ]
    return ", ".join(word for word in words if word)


def _without_place(name: str) -> str:
    """Leave a name of the hub as it is, and of a folder its last part, for the card is read elsewhere.

    >>> _without_place("org/tiny"), _without_place("/home/me/models/tiny")
    ('org/tiny', 'tiny')
    """
    return Path(name).name if Path(name).is_absolute() else name


def _limited(limit: object) -> str:
    return f"at most {limit} questions a task" if limit is not None else ""


def _interval(name: str, value: float, metrics: Mapping[str, float]) -> tuple[float, float]:
    """Return a 95% interval, by Wilson's formula for a share of right answers, which leaves no share out of 0 to 1.

    Of other metrics it is that of a normal distribution, by the standard error.

    >>> [round(end, 3) for end in _interval("acc", 1.0, {"questions": 20.0, "acc_stderr": 0.0})]
    [0.839, 1.0]
    """
    error, questions = metrics.get(f"{name}{_SUFFIX}"), metrics.get(QUESTIONS)
    if error is None:
        return math.nan, math.nan
    if name.partition(" ")[0] in _SHARES and questions and 0 <= value <= 1:
        scale = 1 + _WIDTH**2 / questions
        middle = (value + _WIDTH**2 / (2 * questions)) / scale
        half = _WIDTH / scale * math.sqrt(value * (1 - value) / questions + (_WIDTH / (2 * questions)) ** 2)
        return max(middle - half, 0.0), min(middle + half, 1.0)
    return value - _WIDTH * error, value + _WIDTH * error


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
