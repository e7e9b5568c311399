"""What tells whether that which should be kept is still there."""

from __future__ import annotations

from collections.abc import Mapping

from unlearun.records.evaluation import role_of

# An accuracy counts from what guessing one of four gives.
KEEPING = {"probability": 0.0, "rouge": 0.0, "rougeL_f1_unstemmed": 0.0, "choice_accuracy": 0.25}
LEAST_KEPT = 0.05  # who knew less had nothing to lose


def chance_of(name: str) -> float:
    """Return what guessing gives of a metric.

    Args:
        name: Of the metric, such as ``mmlu/choice_accuracy``.
    """
    return KEEPING.get(name.rpartition("/")[2], 0.0)


def above_chance(summary: Mapping[str, float]) -> dict[str, float]:
    """Return by how much each metric of what should be kept is more than guessing gives.

    Args:
        summary: All metrics of an evaluation.

    >>> above_chance({"mmlu/choice_accuracy": 0.5, "forget/probability": 0.9, "model_utility": 0.6})
    {'mmlu/choice_accuracy': 0.25, 'model_utility': 0.6}
    """
    return {name: value - chance_of(name) for name, value in summary.items() if _tells_of_keeping(name)}


def _tells_of_keeping(name: str) -> bool:
    group, _, metric = name.rpartition("/")
    return name == "model_utility" or (bool(group) and role_of(group) in ("retain", "utility") and metric in KEEPING)
