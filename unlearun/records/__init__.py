"""Records: what is kept of each example, and every number that is made of it. Needs numpy, and no torch."""

from unlearun.records.aggregates import auroc, harmonic_mean, kolmogorov_smirnov, privleak
from unlearun.records.evaluation import Evaluation, role_of
from unlearun.records.meanings import better, meaning
from unlearun.records.published import read_records
from unlearun.records.reference import check_fit, offers, read_reference
from unlearun.records.results import Results, before_after, number, text_table
from unlearun.records.scores import ROUGE_COLUMNS, Score, mean, set_scores
from unlearun.records.summary import AGGREGATES, ATTACKS, NEED_REFERENCE, find, summarise
from unlearun.records.table import SetTable

__all__ = [
    "AGGREGATES",
    "ATTACKS",
    "NEED_REFERENCE",
    "ROUGE_COLUMNS",
    "Evaluation",
    "Results",
    "Score",
    "SetTable",
    "auroc",
    "before_after",
    "better",
    "check_fit",
    "find",
    "harmonic_mean",
    "kolmogorov_smirnov",
    "mean",
    "meaning",
    "number",
    "offers",
    "privleak",
    "read_records",
    "read_reference",
    "role_of",
    "set_scores",
    "summarise",
    "text_table",
]
