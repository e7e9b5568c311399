"""``unlearun report``: what a run has done, or several against one another, as a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from unlearun.arguments import OneLineParser
from unlearun.report.writing import write_report
from unlearun.terminal import say


def main(arguments: Sequence[str]) -> int:
    """Run the command.

    Args:
        arguments: What follows ``unlearun report``.

    Returns:
        The exit status, 0.

    Raises:
        UnlearunError: A folder holds no run, or the report cannot be written there.
    """
    parser = OneLineParser(
        "unlearun report",
        description="Write report.html, report.md and report.csv of a run, or of several against one another.",
        epilog="A fit ends by writing the report of its run.",
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", type=Path, help="a run folder, such as outputs/rmu/1")
    parser.add_argument(
        "--output", metavar="DIR", type=Path, help="where to; default: the run folder, or the folder that holds all"
    )
    chosen = parser.parse_args(arguments)
    say(str(write_report(chosen.runs, chosen.output)))
    return 0
