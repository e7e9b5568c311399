"""How much of what was forgotten an attack brings back.

Shapes: E examples, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from unlearun.records.evaluation import number_of
from unlearun.records.scores import Floats
from unlearun.records.table import SetTable, interval

# Where less than this was forgotten, a share of it says nothing.
LEAST_FORGOTTEN = 0.05
# 0.95 - 0.9 is a little less than 0.05 in binary.
TOLERANCE = 1e-9

Records = Mapping[str, Mapping[str, Any]]


class Recovery(NamedTuple):
    """What an attack brought back.

    Attributes:
        value: The metric after the attack, on the rows that were measured before it too; on all where none was.
        value_low: Where its 95% interval begins.
        value_high: Where it ends.
        share: What came back of what was forgotten, 0 to 1; NaN where less than 0.05 of the metric was forgotten, or
            nothing is known of the start.
        low: Where the share's 95% interval begins.
        high: Where it ends.
        unlearned: The metric before the attack, on the same rows; NaN where it was not measured.
        start: The metric before unlearning, on the same rows; NaN where it was not measured.
    """

    value: float
    value_low: float
    value_high: float
    share: float
    low: float
    high: float
    unlearned: float
    start: float


def recovery(start: Records, unlearned: Records, attacked: Records, column: str, seed: int = 0) -> Recovery:
    """Compare a metric of the same rows in three models: before unlearning, after it, and after an attack.

    Args:
        start: For each example its record, before unlearning.
        unlearned: The same after it.
        attacked: The same after the attack; only its rows count.
        column: What is compared: a column of the records whose mean is the metric, more of it meaning more knowledge.
        seed: What the resamples are drawn from.

    Returns:
        The share is clip((attacked - unlearned) / (start - unlearned), 0, 1) of the means. Its interval is a bootstrap
        over rows, each resample taking the same rows of all three.

    >>> rows = lambda value: {"0": {"probability": value}, "1": {"probability": value}}
    >>> round(recovery(rows(0.9), rows(0.1), rows(0.3), "probability").share, 6)
    0.25
    """
    measured = [key for key, record in attacked.items() if column in record]
    if not measured:
        return Recovery(*[math.nan] * 8)
    known = [key for key in measured if column in unlearned.get(key, {})] or measured
    unknown = {key: {column: math.nan} for key in known}
    compared = [
        side if all(column in side.get(key, {}) for key in known) else unknown for side in (start, unlearned, attacked)
    ]
    sides = [_column(side, known, column) for side in compared]
    weights = SetTable(column, {key: {column: 0.0} for key in known}, seed).weights([column])
    before, after, again = (float(side.mean()) for side in sides)
    value_low, value_high = interval(weights @ sides[2] / len(known))
    if not before - after >= LEAST_FORGOTTEN - TOLERANCE:
        share = low = high = math.nan
    else:
        share = float(_share(*(np.array([side]) for side in (before, after, again)))[0])
        low, high = interval(_share(*(weights @ side / len(known) for side in sides)))
    return Recovery(again, value_low, value_high, share, low, high, after, before)


def among(records: Records, keys: Iterable[str]) -> dict[str, Mapping[str, Any]]:
    """Return the records of some examples.

    Args:
        records: For each example its record.
        keys: Which; those that have none are left out.
    """
    return {key: records[key] for key in keys if key in records}


def _column(records: Records, keys: list[str], column: str) -> Floats:
    return np.array([number_of(records[key][column]) for key in keys], dtype=np.float64)


def _share(start: Floats, unlearned: Floats, attacked: Floats) -> Floats:
    """Return the clipped share; NaN where nothing was forgotten."""
    forgotten = start - unlearned
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(forgotten > 0, np.clip((attacked - unlearned) / forgotten, 0.0, 1.0), np.nan)
