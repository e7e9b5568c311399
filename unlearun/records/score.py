"""``unlearun score``: every aggregate from records, without a model."""

from __future__ import annotations

import argparse
import importlib
import json
import math
import sys
from collections.abc import Sequence

from unlearun.arguments import OneLineParser
from unlearun.errors import SHOWN, UnlearunError
from unlearun.own_code import look_here
from unlearun.records.evaluation import Evaluation
from unlearun.records.published import read_records
from unlearun.records.reference import check_fit, read_reference
from unlearun.records.results import Results
from unlearun.records.scores import Score
from unlearun.records.summary import summarise
from unlearun.terminal import say

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
    scores = custom_scores(evaluation.metrics, chosen.import_metrics)
    summarise(evaluation, reference, scores, intervals=chosen.intervals and not chosen.json)
    if not evaluation.summary:
        raise UnlearunError(f"{chosen.records} holds no value that a metric is made of")
    if chosen.json:
        finite = {name: value if math.isfinite(value) else None for name, value in evaluation.summary.items()}
        say(json.dumps(finite, indent=1))
    else:
        say(f"{describe(evaluation)}\n\n{Results.of(evaluation)}")
    return 0


def find_reference(evaluation: Evaluation, named: str | None) -> Evaluation | None:
    """Return the retain reference of an evaluation: the one named, else the one that it was made with.

    Args:
        evaluation: Its fingerprint may name one, which then may be gone or changed: that is a warning.
        named: What the user named.

    Raises:
        UnlearunError: The one named cannot be read, or does not fit.
    """
    where = named or evaluation.fingerprint.get("retain_reference")
    if not isinstance(where, str):
        return None
    try:
        reference = read_reference(where)
        check_fit(evaluation, reference, where)
    except UnlearunError as error:
        if named:
            raise
        _warn(f"what is relative to a retain model is left out: {error}")
        return None
    return reference


def custom_scores(metrics: Sequence[str], import_them: bool) -> list[Score]:
    """Return the scores of metrics that are not ours; warns of those that are left out.

    Args:
        metrics: Names of ours, which are passed over, and dotted paths of classes.
        import_them: Whether the user trusts the records, which name the code that is run.
    """
    paths = [path for path in dict.fromkeys(metrics) if "." in path]
    if paths and not import_them:
        named = ", ".join(f"{path!r:.80}" for path in paths[:SHOWN])
        more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
        _warn(
            f"metrics that these records name are left out, for importing them runs their code: {named}{more} "
            "(if you trust it, add --import-metrics)"
        )
        return []
    scores = []
    if paths:
        look_here()
    for path in paths:
        module, _, name = path.rpartition(".")
        try:
            score = getattr(importlib.import_module(module), name).score
        except Exception as error:  # the module may raise whatever it likes
            _warn(f"{path} is left out, it cannot be imported: {error}")
            continue
        if isinstance(score, Score):
            scores.append(score)
        else:
            _warn(f"{path} is left out, its score is no unlearun.records.Score")
    return scores


def describe(evaluation: Evaluation) -> str:
    """Say what records are: their kind, the model if it is known, and the rows of each set."""
    facts = evaluation.fingerprint
    kind = KINDS.get(str(facts.get("kind")), f"evaluation at step {evaluation.step}")
    made = [f"{key} {facts[key]}" for key in ("model", "method") if facts.get(key)]
    rows = [f"{name} {len(records)}" for name, records in evaluation.examples.items()]
    return "\n".join([", ".join([kind, *made]), f"rows: {', '.join(rows) or 'none'}"])


def _warn(message: str) -> None:
    sys.stderr.write(f"unlearun: warning: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
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
    parser.add_argument(
        "--import-metrics",
        action="store_true",
        help="import the metrics that the records name by dotted path, which runs their code; without it they are "
        "left out",
    )
    return parser
