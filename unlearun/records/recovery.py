"""How much of what was forgotten an attack brings back.

Shapes: E examples, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from unlearun.records.scores import Floats
from unlearun.records.table import SetTable, interval

# Where less than this was forgotten, a share of it says nothing.
LEAST_FORGOTTEN = 0.05

Records = Mapping[str, Mapping[str, Any]]


class Recovery(NamedTuple):
    """What an attack brought back.

    Attributes:
        value: The metric after the attack.
        value_low: Where its 95% interval begins.
        value_high: Where it ends.
        share: What came back of what was forgotten, 0 to 1; NaN where less than 0.05 of the metric was forgotten, or
            nothing is known of the start.
        low: Where the share's 95% interval begins.
        high: Where it ends.
        unlearned: The metric before the attack, on the same rows.
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
    known = [key for key, record in attacked.items() if column in record and column in unlearned.get(key, {})]
    with_start = bool(known) and all(column in start.get(key, {}) for key in known)
    sides = [_column(side, known, column) for side in ((start if with_start else unlearned), unlearned, attacked)]
    if not known:
        return Recovery(*[math.nan] * 8)
    weights = SetTable(column, {key: {column: 0.0} for key in known}, seed).weights([column])
    before, after, again = (float(side.mean()) for side in sides)
    value_low, value_high = interval(weights @ sides[2] / len(known))
    if not with_start or not before - after >= LEAST_FORGOTTEN:
        share = low = high = math.nan
    else:
        share = float(_share(*(np.array([side]) for side in (before, after, again)))[0])
        low, high = interval(_share(*(weights @ side / len(known) for side in sides)))
    return Recovery(again, value_low, value_high, share, low, high, after, before if with_start else math.nan)


def among(records: Records, keys: Iterable[str]) -> dict[str, Mapping[str, Any]]:
    """Return the records of some examples.

    Args:
        records: For each example its record.
        keys: Which; those that have none are left out.
    """
    return {key: records[key] for key in keys if key in records}


def _column(records: Records, keys: list[str], column: str) -> Floats:
    return np.array([math.nan if (value := records[key][column]) is None else value for key in keys], dtype=np.float64)


def _share(start: Floats, unlearned: Floats, attacked: Floats) -> Floats:
    """Return the clipped share; NaN where nothing was forgotten."""
    forgotten = start - unlearned
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(forgotten > 0, np.clip((attacked - unlearned) / forgotten, 0.0, 1.0), np.nan)
