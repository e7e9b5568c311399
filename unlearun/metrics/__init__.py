"""Metrics: how much is left of what was to be forgotten, and of all else."""

from unlearun.metrics.catalogue import CATALOGUE, OPT_IN, Choice, SetTraits
from unlearun.metrics.combined import ForgetQuality, MembershipInference, ModelUtility
from unlearun.metrics.example_metric import ExampleMetric, TextMetric, TokenMetric
from unlearun.metrics.likelihood import ChoiceAccuracy, ParaphraseProbability, Perplexity, Probability, TruthRatio
from unlearun.metrics.membership import GradientNorm, MembershipScore
from unlearun.metrics.memorization import ExactMemorization, ExtractionStrength
from unlearun.metrics.suite import EvaluationSuite
from unlearun.metrics.text import ROUGE, Fluency, ShortAnswer, UnstemmedROUGE, VerbatimMemorization

__all__ = [
    "CATALOGUE",
    "OPT_IN",
    "ROUGE",
    "Choice",
    "ChoiceAccuracy",
    "EvaluationSuite",
    "ExactMemorization",
    "ExampleMetric",
    "ExtractionStrength",
    "Fluency",
    "ForgetQuality",
    "GradientNorm",
    "MembershipInference",
    "MembershipScore",
    "ModelUtility",
    "ParaphraseProbability",
    "Perplexity",
    "Probability",
    "SetTraits",
    "ShortAnswer",
    "TextMetric",
    "TokenMetric",
    "TruthRatio",
    "UnstemmedROUGE",
    "VerbatimMemorization",
]
