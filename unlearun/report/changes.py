"""Values with their intervals, and whether one became clearly better than another."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from unlearun.records import Evaluation, better, interval, number, resamples


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
            are written alike, and "no clear difference" else. A value that has no interval is judged by itself.
            Nothing where there is no telling.
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
        if aim is None:
            ends = [_gain(way, aim, one, two) for one in (before.low, before.high) for two in (after.low, after.high)]
            return min(ends), max(ends)
        (near, far), (nearer, farther) = _distances(before, aim), _distances(after, aim)
        return near - farther, far - nearer


def _gain(way: str, aim: float | None, before: Any, after: Any) -> Any:  # noqa: ANN401 - numbers, or arrays of them
    """Return by how much a value became better."""
    if aim is not None:
        return abs(before - aim) - abs(after - aim)
    return after - before if way == "higher" else before - after


def _distances(value: Value, aim: float) -> tuple[float, float]:
    """Return how near to where it should be a value may be, and how far from it, by its interval."""
    ends = abs(value.low - aim), abs(value.high - aim)
    return 0.0 if _holds(value, aim) else min(ends), max(ends)


def _holds(value: Value, aim: float) -> bool:
    """Say whether a value may well be where it should be."""
    return value.low <= aim <= value.high
