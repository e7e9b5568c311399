"""Scores made of several metrics: forget quality and model utility."""

from __future__ import annotations

from collections.abc import Mapping

NOT_UTILITY = ("forget", "holdout")


def harmonic_mean(values: list[float]) -> float:
    """Return the harmonic mean, 0 if any value is 0 or below.

    >>> round(harmonic_mean([0.5, 1.0]), 4)
    0.6667
    """
    if min(values) <= 0:
        return 0.0
    return len(values) / sum(1 / value for value in values)


def forget_quality(summary: Mapping[str, float]) -> tuple[float, list[str]] | None:
    """Score how little is left of the forget set, without a second model.

    Args:
        summary: Values keyed ``set/metric``.

    Returns:
        The harmonic mean, 0 to 1 (higher is better), of 1 - exact memorization and 1 - probability, as far as they
        are there, and the names of its parts; None without any.
    """
    parts = {
        f"1-{metric}": 1 - summary[f"forget/{metric}"]
        for metric in ("exact_memorization", "probability")
        if f"forget/{metric}" in summary
    }
    return (harmonic_mean(list(parts.values())), list(parts)) if parts else None


def model_utility(summary: Mapping[str, float]) -> tuple[float, list[str]] | None:
    """Score what is left of everything else.

    Args:
        summary: Values keyed ``set/metric``.

    Returns:
        The harmonic mean, 0 to 1 (higher is better), of the probability on every set whose name begins with neither
        "forget" nor "holdout": retain and the utility sets. And the names of its parts; None without any.
    """
    parts = {
        name: value
        for name, value in summary.items()
        if name.endswith("/probability") and not name.startswith(NOT_UTILITY)
    }
    return (harmonic_mean(list(parts.values())), list(parts)) if parts else None
