"""The values of runs as rows of a table: before, after, and what that means."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

from unlearun.records import (
    AGGREGATES,
    ROUGE_COLUMNS,
    Evaluation,
    better,
    interval,
    meaning,
    number,
    resamples,
    role_of,
)
from unlearun.report.reported_run import ReportedRun

# The rows of a run that a comparison begins with.
MAIN = (
    *("forget_quality", "model_utility", "ks_forget_quality", "privleak", "mia"),
    *("forget/extraction_strength", "forget/exact_memorization", "forget/probability", "forget/rouge"),
    *("retain/probability", "retain/rouge"),
)
DIRECTIONS = {"higher": "higher is better", "lower": "lower is better", "": "neither way is better"}
COLUMNS = ("run", "step", "metric", "value", "low", "high", "better")


class Value(NamedTuple):
    """A value with its 95% interval.

    Attributes:
        value: The value; NaN where records hold no number.
        low: The interval's lower end; NaN where there is none.
        high: The upper end.
    """

    value: float
    low: float = math.nan
    high: float = math.nan

    @property
    def text(self) -> str:
        """The value as a table shows it."""
        return number(self.value)

    @property
    def known(self) -> bool:
        """Whether there is one."""
        return not math.isnan(self.value)

    @property
    def interval(self) -> str:
        """The interval as a table shows it; empty where there is none."""
        return "" if math.isnan(self.low) else f"{number(self.low)} to {number(self.high)}"


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
    changes = Changes(start, run.last)
    found = []
    for name in _ordered(run.last):
        after = value_of(run.last, name)
        parts = None if start is None else start.parts.get(name)
        same_parts = parts is None or set(parts) == set(run.last.parts.get(name, parts))
        before = value_of(start, name) if start is not None and name in start.summary and same_parts else None
        known = None if math.isnan(after.low) else (after.low, after.high)
        found.append(
            Line(
                name, before, after, better(name), changes.word(name, before, after), meaning(name, after.value, known)
            )
        )
    return found


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
    """Write every value at the start and the end of some runs, a line each.

    Args:
        runs: The runs.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for run in runs:
        for evaluation in [one for one in (run.first, run.last) if one is not None]:
            for name in evaluation.summary:
                value = value_of(evaluation, name)
                cells = ["" if math.isnan(cell) else repr(float(cell)) for cell in value]
                writer.writerow([_cell(run.name), evaluation.step, _cell(name), *cells, better(name)])
    return text.getvalue()


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


class Changes:
    """What two evaluations of the same rows differ in, and whether that is more than the choice of rows makes.

    Args:
        first: The one before; None where there is none.
        last: The one after.
    """

    def __init__(self, first: Evaluation | None, last: Evaluation) -> None:
        self._before = {} if first is None else resamples(first)
        self._after = {} if first is None else resamples(last)

    def word(self, name: str, before: Value | None, after: Value) -> str:
        """Say whether a metric became better or worse.

        Args:
            name: The metric.
            before: Its value before, if there is one.
            after: Its value after.

        Returns:
            "better" or "worse" where the 95% interval of the paired difference, or of how much nearer the value came to
            where it should be, is all on one side; "overshot" where it clearly crossed that; "same" where the values
            are written alike, and "no clear difference" else. Nothing where there is no telling.
        """
        way = better(name)
        if before is None or not way or math.isnan(before.value) or math.isnan(after.value):
            return ""
        if before.text == after.text:
            return "same"
        aim = None if way in ("higher", "lower") else float(way)
        if aim is not None and (before.value - aim) * (after.value - aim) < 0 and not _holds(after, aim):
            return "overshot"
        gain = _gain(way, aim, before.value, after.value)
        low, high = self._gained(name, way, aim, before, after)
        if math.isnan(low):  # a metric of the user's own, or of one number: nothing is known of its spread
            return "better" if gain > 0 else "worse"
        if low <= 0 <= high:
            return "no clear difference"
        return "better" if low > 0 else "worse"

    def _gained(self, name: str, way: str, aim: float | None, before: Value, after: Value) -> tuple[float, float]:
        first, last = self._before.get(name), self._after.get(name)
        if first is not None and last is not None and first.shape == last.shape:
            return interval(_gain(way, aim, first, last))
        if math.isnan(before.low) or math.isnan(after.low):
            return math.nan, math.nan
        ends = [_gain(way, aim, one, two) for one in (before.low, before.high) for two in (after.low, after.high)]
        return min(ends), max(ends)


def _gain(way: str, aim: float | None, before: Any, after: Any) -> Any:  # noqa: ANN401 - numbers, or arrays of them
    """Return by how much a value became better."""
    if aim is not None:
        return abs(before - aim) - abs(after - aim)
    return after - before if way == "higher" else before - after


def _holds(value: Value, aim: float) -> bool:
    """Say whether a value may well be where it should be."""
    return value.low <= aim <= value.high
