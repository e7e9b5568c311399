"""``unlearun attack``: try to bring back what runs have made models forget."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from unlearun import runs
from unlearun.arguments import OneLineParser
from unlearun.attacks.attacking import FOLDER, attack, report_folder
from unlearun.attacks.configs import shipped_attacks
from unlearun.attacks.table import details_table, judgement_table, standings_table
from unlearun.report.attacks import looked_into
from unlearun.terminal import say


def main(arguments: Sequence[str]) -> int:
    """Run the command.

    Args:
        arguments: What follows ``unlearun attack``.

    Returns:
        The exit status, 0.

    Raises:
        UnlearunError: A folder holds no run that has ended, or there is no such attack or model.
    """
    chosen = _parser().parse_args(arguments)
    runs.quiet()
    with runs.interruptible(), runs.ended_by_sigterm():
        standings = attack(chosen.runs, chosen.attacks, chosen.gold, chosen.output, chosen.precision, chosen.again)
    if chosen.json:
        say(json.dumps([one.to_json() for one in standings]))
        return 0
    parts = [standings_table(standings)]
    parts += [details_table(standings[0])] if len(standings) == 1 and standings[0].tried else []
    parts += ["\n".join(looked)] if (looked := looked_into(standings)) else []
    judged = [one.metrics for one in standings if one.metrics]
    parts += [judgement_table(judged)] if judged else []
    skipped = dict.fromkeys(f"not tried: {what}: {why}" for one in standings for what, why in one.skipped.items())
    parts += ["\n".join(skipped)] if skipped else []
    page = report_folder(chosen.runs, chosen.output) / "report.html"
    say("\n\n".join([*parts, f"report: {page}"]))
    return 0


def _parser() -> OneLineParser:
    parser = OneLineParser(
        "unlearun attack",
        description="Try to bring back what runs have made models forget.",
        epilog=f"What is found stays in RUN/{FOLDER}; an attack that was carried out with the same settings is not "
        "repeated. The report of each run, and one of all, is written again.",
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", type=Path, help="a run folder, such as outputs/rmu/1")
    parser.add_argument(
        "--attacks",
        metavar="ATTACK",
        nargs="+",
        help=f"what is carried out, named behind the runs: of {', '.join(shipped_attacks())}, or YAML files; default: "
        "all that ship. What others have found of the same model before still counts, until its file is removed",
    )
    parser.add_argument(
        "--gold",
        metavar="MODEL",
        help="a model that never saw the forget set, attacked alike; default: that of the run's retain_reference",
    )
    parser.add_argument(
        "--output", metavar="DIR", type=Path, help="where the report of all goes; as of unlearun report"
    )
    parser.add_argument("--precision", help="the Trainer's, such as bf16-mixed; default: that of the run")
    parser.add_argument("--again", action="store_true", help="carry out attacks though nothing has changed since")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    return parser
