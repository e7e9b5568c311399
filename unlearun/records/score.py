"""``unlearun score``: every aggregate from records, without a model."""

from __future__ import annotations

import argparse
import importlib
import json
import math
import sys
from collections.abc import Sequence

from unlearun.errors import UnlearunError
from unlearun.records.evaluation import Evaluation
from unlearun.records.published import read_records
from unlearun.records.reference import check_fit, read_reference
from unlearun.records.results import Results
from unlearun.records.scores import Score
from unlearun.records.summary import summarise

KINDS = {"open-unlearning": "OpenUnlearning's TOFU_EVAL.json", "tofu": "TOFU's eval_log_aggregated.json"}
RECORDS = (
    "an eval/step=N.json, a run folder (its last evaluation), OpenUnlearning's TOFU_EVAL.json or "
    "TOFU's eval_log_aggregated.json"
)


def main(arguments: Sequence[str]) -> int:
    """Run the command.

    Args:
        arguments: What follows ``unlearun score``.

    Returns:
        The exit status, 0.

    Raises:
        UnlearunError: A file cannot be read, or the reference does not fit.
    """
    chosen = _parser().parse_args(arguments)
    evaluation = read_records(chosen.records)
    reference = find_reference(evaluation, chosen.retain)
    summarise(evaluation, reference, custom_scores(evaluation.metrics), intervals=chosen.intervals and not chosen.json)
    if not evaluation.summary:
        raise UnlearunError(f"{chosen.records} holds no value that a metric is made of")
    if chosen.json:
        finite = {name: value if math.isfinite(value) else None for name, value in evaluation.summary.items()}
        sys.stdout.write(f"{json.dumps(finite, indent=1)}\n")
    else:
        sys.stdout.write(f"{describe(evaluation)}\n\n{Results.of(evaluation)}\n")
    return 0


def find_reference(evaluation: Evaluation, named: str | None) -> Evaluation | None:
    """Return the retain reference of an evaluation: the one named, else the one that it was made with.

    Args:
        evaluation: Its fingerprint may name one, which then may be gone: that is a warning.
        named: What the user named.

    Raises:
        UnlearunError: It cannot be read, or does not fit.
    """
    where = named or evaluation.fingerprint.get("retain_reference")
    if not isinstance(where, str):
        return None
    try:
        reference = read_reference(where)
    except UnlearunError as error:
        if named:
            raise
        sys.stderr.write(f"unlearun: warning: what is relative to a retain model is left out: {error}\n")
        return None
    check_fit(evaluation, reference, where)
    return reference


def custom_scores(metrics: Sequence[str]) -> list[Score]:
    """Return the scores of metrics that are not ours; warns of those that cannot be imported.

    Args:
        metrics: Names of ours, which are passed over, and dotted paths of classes.
    """
    scores = []
    for path in metrics:
        module, _, name = path.rpartition(".")
        if not module:
            continue
        try:
            score = getattr(importlib.import_module(module), name).score
        except (ImportError, AttributeError) as error:
            sys.stderr.write(f"unlearun: warning: {path} is left out, it cannot be imported: {error}\n")
            continue
        if isinstance(score, Score):
            scores.append(score)
        else:
            sys.stderr.write(f"unlearun: warning: {path} is left out, its score is no unlearun.records.Score\n")
    return scores


def describe(evaluation: Evaluation) -> str:
    """Say what records are: their kind, the model if it is known, and the rows of each set."""
    facts = evaluation.fingerprint
    kind = KINDS.get(facts.get("kind", ""), f"evaluation at step {evaluation.step}")
    made = [f"{key} {facts[key]}" for key in ("model", "method") if facts.get(key)]
    rows = [f"{name} {len(records)}" for name, records in evaluation.examples.items()]
    return "\n".join([", ".join([kind, *made]), f"rows: {', '.join(rows) or 'none'}"])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "unlearun score", description="Compute every aggregate from the records of an evaluation, without a model."
    )
    parser.add_argument("records", metavar="RECORDS", help=RECORDS)
    parser.add_argument(
        "--retain",
        metavar="REFERENCE",
        help="records of a model that never saw the forget set, for ks_forget_quality, privleak and mia_reference; "
        "without it, that of the evaluation",
    )
    parser.add_argument("--json", action="store_true", help="print one object, name to number, instead of a table")
    parser.add_argument(
        "--no-intervals", dest="intervals", action="store_false", help="leave out the 95%% bootstrap intervals"
    )
    return parser
