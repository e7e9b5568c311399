"""Metrics: how much is left of what was to be forgotten, and of all else."""

from unlearun.metrics.aggregates import forget_quality, harmonic_mean, model_utility
from unlearun.metrics.example_metric import ExampleMetric
from unlearun.metrics.likelihood import ExactMemorization, Perplexity, Probability
from unlearun.metrics.suite import METRICS, Evaluation, EvaluationSuite

__all__ = [
    "METRICS",
    "Evaluation",
    "EvaluationSuite",
    "ExactMemorization",
    "ExampleMetric",
    "Perplexity",
    "Probability",
    "forget_quality",
    "harmonic_mean",
    "model_utility",
]
