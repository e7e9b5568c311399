"""Scores of one set: how the records of its examples become one number.

Every score takes weights, how often each example counts, so that a bootstrap is one call.
Shapes: E examples, C columns of a record, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]

ROUGE_COLUMNS = ("rouge1_recall", "rouge1_f1", "rouge2_recall", "rouge2_f1", "rougeL_recall", "rougeL_f1")


class Score(NamedTuple):
    """A number made of the records of a set.

    Attributes:
        name: What it is called.
        columns: What it reads of each record.
        reduce: From records ``(E, C)`` and weights ``(R, E)`` to values ``(R,)``.
    """

    name: str
    columns: tuple[str, ...]
    reduce: Callable[[Floats, Floats], Floats]

    def value(self, records: Floats) -> float:
        """Return the score of records ``(E, C)``, each counted once."""
        return float(self.reduce(records, np.ones((1, len(records))))[0])


def mean(records: Floats, weights: Floats) -> Floats:
    """Return the mean of the first column.

    Args:
        records: ``(E, C)``.
        weights: ``(R, E)``.

    Returns:
        ``(R,)`` means.
    """
    return (weights @ records[:, 0]) / weights.sum(-1)


def perplexity(records: Floats, weights: Floats) -> Floats:
    """Return exp of the token mean of the negative log-probability.

    Args:
        records: ``(E, 2)``: S and n of each answer.
        weights: ``(R, E)``.

    Returns:
        ``(R,)`` perplexities, infinite where no double holds them.
    """
    total, count = weights @ records[:, 0], weights @ records[:, 1]
    with np.errstate(over="ignore"):
        return np.exp(-total / count)


def forget_truth_ratio(records: Floats, weights: Floats) -> Floats:
    """Return the mean of min(R, 1/R): 1 when wrong and right answers are equally likely.

    Args:
        records: ``(E, 1)`` truth ratios R.
        weights: ``(R, E)``.
    """
    return mean(np.minimum(records, 1 / np.maximum(records, 1e-300)), weights)


def kept_truth_ratio(records: Floats, weights: Floats) -> Floats:
    """Return the mean of max(0, 1 - R): 1 when only the right answers are likely.

    Args:
        records: ``(E, 1)`` truth ratios R.
        weights: ``(R, E)``.
    """
    return mean(np.maximum(0.0, 1 - records), weights)


def choice(records: Floats, weights: Floats) -> Floats:
    """Return the mean of p_c / (p_c + p_w) = 1 / (1 + R), how clearly the right answer is preferred.

    Args:
        records: ``(E, 1)`` truth ratios R = p_w / p_c.
        weights: ``(R, E)``.
    """
    return mean(1 / (1 + records), weights)


MEANS = (
    "probability",
    "exact_memorization",
    "extraction_strength",
    "verbatim_memorization",
    *ROUGE_COLUMNS,
    "rougeL_f1_unstemmed",
    "short_answer",
    "fluency",
    "choice_accuracy",
)
_OF_ANY_SET = {
    "perplexity": Score("perplexity", ("logprob", "tokens"), perplexity),
    **{name: Score(name, (name,), mean) for name in MEANS},
    "rouge": Score("rouge", ("rougeL_recall",), mean),
}


def set_scores(role: str) -> dict[str, Score]:
    """Return the scores that a set of this role can have.

    Args:
        role: "forget", "retain", "holdout" or "utility".
    """
    truth_ratio = forget_truth_ratio if role == "forget" else kept_truth_ratio
    return {**_OF_ANY_SET, "truth_ratio": Score("truth_ratio", ("truth_ratio",), truth_ratio)}
