"""The values of runs as rows of a table: before, after, and what that means."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable
from typing import NamedTuple

from unlearun.records import AGGREGATES, ROUGE_COLUMNS, Evaluation, better, meaning, role_of
from unlearun.report.changes import Value
from unlearun.report.reported_run import ReportedRun
from unlearun.report.tasks import task_rows

# The rows of a run that a comparison begins with.
MAIN = (
    *("forget_quality", "model_utility", "ks_forget_quality", "privleak", "mia"),
    *("forget/extraction_strength", "forget/exact_memorization", "forget/probability", "forget/rouge"),
    *("retain/probability", "retain/rouge"),
)
DIRECTIONS = {"higher": "higher is better", "lower": "lower is better", "": "neither way is better"}
COLUMNS = ("run", "step", "metric", "value", "low", "high", "better")


class Line(NamedTuple):
    """A metric of a run.

    Attributes:
        name: ``set/metric``, or an aggregate.
        before: At step 0, where it can be compared.
        after: At the end.
        better: "higher", "lower", the value to come near, or nothing.
        change: What `Changes.word` says of it.
        meaning: What the value after means, in a few words.
    """

    name: str
    before: Value | None
    after: Value
    better: str
    change: str
    meaning: str

    @property
    def direction(self) -> str:
        """Which way is better, in words."""
        return direction(self.name)


def direction(name: str) -> str:
    """Say which way of a metric is better, in words.

    Args:
        name: ``set/metric``, or an aggregate.

    >>> direction("forget/probability"), direction("mia")
    ('lower is better', 'best near 0.5')
    """
    way = better(name)
    return DIRECTIONS.get(way, f"best near {way}")


def lines(run: ReportedRun) -> list[Line]:
    """Return every metric of a run, aggregates first, then the forget set.

    Args:
        run: The run.
    """
    start = run.first if run.comparable else None
    found = []
    for name in _ordered(run.last):
        after = value_of(run.last, name)
        parts = None if start is None else start.parts.get(name)
        same_parts = parts is None or set(parts) == set(run.last.parts.get(name, parts))
        before = value_of(start, name) if start is not None and name in start.summary and same_parts else None
        known = None if math.isnan(after.low) else (after.low, after.high)
        change = "" if run.learns and _of_forgetting(name) else run.changes.word(name, before, after)
        means = meaning(name, after.value, known)
        found.append(Line(name, before, after, better(name), change, means))
    return found


def _of_forgetting(name: str) -> bool:
    """Say whether a metric tells of the forget set, which a method that learns has no aim for."""
    group, _, _ = name.rpartition("/")
    return role_of(group) == "forget" if group else name != "model_utility"


def main_lines(found: Iterable[Line]) -> list[Line]:
    """Leave out ROUGE's details, where ``rouge`` stands for them.

    Args:
        found: Lines of a run.
    """
    found = list(found)
    whole = {line.name.rpartition("/")[0] for line in found if line.name.rpartition("/")[2] == "rouge"}
    return [
        line
        for line in found
        if line.name.rpartition("/")[2] not in ROUGE_COLUMNS or line.name.rpartition("/")[0] not in whole
    ]


def value_of(evaluation: Evaluation, name: str) -> Value:
    """Return a value of an evaluation with its interval.

    Args:
        evaluation: What was found.
        name: A key of its summary.
    """
    return Value(evaluation.summary[name], *evaluation.intervals.get(name, ()))


def compared_names(runs: list[ReportedRun]) -> list[str]:
    """Return the metrics that any of several runs has, the main ones first.

    Args:
        runs: The runs.
    """
    every = dict.fromkeys(name for run in runs for name in _ordered(run.last))
    return [*(name for name in MAIN if name in every), *(name for name in every if name not in MAIN)]


def to_csv(runs: list[ReportedRun]) -> str:
    """Write every value at the start and the end of some runs, a line each, and what tasks of lm-eval have found.

    Args:
        runs: The runs.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for run in runs:
        for evaluation in [one for one in (run.first, run.last) if one is not None]:
            for name in evaluation.summary:
                cells = _numbers(value_of(evaluation, name))
                writer.writerow([_cell(run.name), evaluation.step, _cell(name), *cells, better(name)])
        for task in task_rows([run]):
            name = f"lm-eval/{task.task}/{task.metric}"
            writer.writerow([_cell(run.name), run.last.step, name, *_numbers(task.values[0]), ""])
    return text.getvalue()


def _numbers(value: Value | None) -> list[str]:
    """Write a value and the ends of its interval; nothing where there is none."""
    return ["" if math.isnan(number) else repr(float(number)) for number in value or Value(math.nan)]


def _cell(text: str) -> str:
    """Keep a spreadsheet from reading a name as a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


def _ordered(evaluation: Evaluation) -> list[str]:
    ranks = {"forget": 1, "retain": 2, "utility": 3, "holdout": 4}

    def rank(name: str) -> tuple[int, int]:
        group, slash, _ = name.rpartition("/")
        if not slash:
            bare = name.removesuffix("_log10")
            return 0, AGGREGATES.index(bare) if bare in AGGREGATES else len(AGGREGATES)
        return ranks[role_of(group)], 0

    return sorted(evaluation.summary, key=rank)
