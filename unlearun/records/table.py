"""The records of one set as columns of numbers.

Shapes: E examples, C columns, R resamples.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unlearun.errors import UnlearunError
from unlearun.records.scores import Floats, Score

RESAMPLES = 1000


class SetTable:
    """The records of one set, in the order of their ids.

    Args:
        name: The set.
        examples: For each id its record.
        seed: What the resamples are drawn from.
    """

    def __init__(self, name: str, examples: Mapping[str, Mapping[str, Any]], seed: int = 0) -> None:
        self.name = name
        self.ids = sorted(examples, key=lambda key: (len(key), key))
        self._records = [examples[key] for key in self.ids]
        self._seed = seed
        self._counts: Floats | None = None

    def rows_with(self, columns: Sequence[str]) -> list[int]:
        """Return the positions of the examples whose record has all these columns."""
        return [i for i, record in enumerate(self._records) if all(column in record for column in columns)]

    def columns(self, names: Sequence[str]) -> Floats:
        """Return the columns ``(E, C)`` of the examples that have them all; null is NaN."""
        rows = [[self._records[i][name] for name in names] for i in self.rows_with(names)]
        try:
            return np.array(rows, dtype=np.float64).reshape(len(rows), len(names))
        except (TypeError, ValueError, OverflowError) as error:
            raise UnlearunError(f"a record of {self.name} holds no number in {' or '.join(names)}: {error}") from error

    def weights(self, names: Sequence[str]) -> Floats:
        """Return how often each example that has these columns counts in each resample, ``(R, E)``.

        All columns of a set share their resamples, so aggregates of several of them keep their correlation.
        """
        if self._counts is None:
            # A JSON file can hold half of a surrogate pair.
            name = self.name.encode("utf-8", "surrogatepass")
            generator = np.random.default_rng([self._seed, zlib.crc32(name)])
            size = len(self.ids)
            self._counts = generator.multinomial(size, np.full(size, 1 / size), RESAMPLES).astype(np.float64)
        return self._counts[:, self.rows_with(names)]

    def score(self, score: Score) -> float | None:
        """Return a score; None when no example has its columns."""
        records = self.columns(score.columns)
        with np.errstate(invalid="ignore", divide="ignore"):
            return score.value(records) if len(records) else None

    def resampled(self, score: Score) -> Floats:
        """Return the score in each resample, ``(R,)``; NaN in those that hold no example with its columns."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return score.reduce(self.columns(score.columns), self.weights(score.columns))


def interval(values: Floats) -> tuple[float, float]:
    """Return the middle 95% of resampled values; NaN where there are none."""
    known = values[~np.isnan(values)]
    if not len(known):
        return (float("nan"), float("nan"))
    low, high = np.percentile(known, [2.5, 97.5], method="nearest")
    return float(low), float(high)
