"""The forget rows of an evaluation, by one name and as few of them as are wanted."""

from __future__ import annotations

import math

from unlearun.records.evaluation import Evaluation, number_of
from unlearun.records.summary import summarise

FORGET = "forget"


def as_forget(evaluation: Evaluation, name: str) -> Evaluation:
    """Return an evaluation whose forget set is called ``forget``, whatever it was called.

    Args:
        evaluation: What was found.
        name: What its forget set is called.
    """
    if name == FORGET:
        return evaluation
    renamed = Evaluation(
        evaluation.step, metrics=evaluation.metrics, fingerprint=evaluation.fingerprint, given=evaluation.given
    )
    renamed.examples = {FORGET if key == name else key: rows for key, rows in evaluation.examples.items()}
    summarise(renamed)
    return renamed


def only(evaluation: Evaluation, name: str) -> Evaluation:
    """Return what was found of one set, which is then called ``forget``.

    Args:
        evaluation: What was found of several.
        name: The set.
    """
    one = Evaluation(evaluation.step, examples={FORGET: evaluation.examples[name]}, metrics=evaluation.metrics)
    facts = (evaluation.fingerprint.get("sets") or {}).get(name)
    one.fingerprint = {"sets": {FORGET: facts}} if facts else {}
    summarise(one)
    return one


def of_rows(evaluation: Evaluation, kept: set[str]) -> Evaluation:
    """Return an evaluation of some forget rows alone, and of all rows of other sets.

    Args:
        evaluation: What was found of all.
        kept: The ids of the forget rows.
    """
    fewer = Evaluation(evaluation.step, metrics=evaluation.metrics, fingerprint=evaluation.fingerprint)
    fewer.examples = {**evaluation.examples}
    fewer.examples[FORGET] = {key: row for key, row in evaluation.examples[FORGET].items() if key in kept}
    summarise(fewer)
    return fewer


def mean_of(evaluation: Evaluation, column: str, kept: set[str] | None = None) -> float:
    """Return the mean of a column over forget rows; NaN where none has it, or it is not known of one.

    Args:
        evaluation: What was found.
        column: Of the records.
        kept: The ids of the rows that count; None for all.
    """
    rows = evaluation.examples.get(FORGET, {}).items()
    values = [number_of(row[column]) for key, row in rows if column in row and (kept is None or key in kept)]
    return sum(values) / len(values) if values else math.nan
