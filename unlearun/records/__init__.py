"""Records: what is kept of each example, and every number that is made of it. Needs numpy, and no torch."""

from unlearun.records.aggregates import auroc, harmonic_mean, kolmogorov_smirnov, privleak
from unlearun.records.attacked import Attacked
from unlearun.records.evaluation import Evaluation, role_of
from unlearun.records.forget_rows import FORGET, as_forget, mean_of, of_rows, only
from unlearun.records.meanings import better, meaning
from unlearun.records.metric_faith import quantisation_faith, relearning_faith
from unlearun.records.one_score import OneScore, one_score
from unlearun.records.published import read_records
from unlearun.records.recovery import LEAST_FORGOTTEN, Recovery, recovery
from unlearun.records.reference import check_fit, offers, read_reference
from unlearun.records.results import Results, before_after, number, text_table
from unlearun.records.robustness import (
    Standing,
    Tried,
    best_layer,
    judge_metrics,
    layer_values,
    other_attacks,
    stand,
    with_golds,
)
from unlearun.records.run_evaluations import evaluation_file, evaluation_files
from unlearun.records.same_rows import measured_otherwise, same_rows
from unlearun.records.scores import ROUGE_COLUMNS, Score, mean, set_scores
from unlearun.records.summary import AGGREGATES, ATTACKS, NEED_REFERENCE, find, resamples, summarise
from unlearun.records.table import SetTable, interval

__all__ = [
    "AGGREGATES",
    "ATTACKS",
    "FORGET",
    "LEAST_FORGOTTEN",
    "NEED_REFERENCE",
    "ROUGE_COLUMNS",
    "Attacked",
    "Evaluation",
    "OneScore",
    "Recovery",
    "Results",
    "Score",
    "SetTable",
    "Standing",
    "Tried",
    "as_forget",
    "auroc",
    "before_after",
    "best_layer",
    "better",
    "check_fit",
    "evaluation_file",
    "evaluation_files",
    "find",
    "harmonic_mean",
    "interval",
    "judge_metrics",
    "kolmogorov_smirnov",
    "layer_values",
    "mean",
    "mean_of",
    "meaning",
    "measured_otherwise",
    "number",
    "of_rows",
    "offers",
    "one_score",
    "only",
    "other_attacks",
    "privleak",
    "quantisation_faith",
    "read_records",
    "read_reference",
    "recovery",
    "relearning_faith",
    "resamples",
    "role_of",
    "same_rows",
    "set_scores",
    "stand",
    "summarise",
    "text_table",
    "with_golds",
]
