"""What a report shows of runs, whatever it is written in: examples with what they share, and values side by side."""

from __future__ import annotations

from typing import Any, NamedTuple

from unlearun.records import role_of
from unlearun.report.changes import Value
from unlearun.report.figures_of_runs import best_runs
from unlearun.report.marking import Piece, mark_shared
from unlearun.report.reported_run import ReportedRun
from unlearun.report.values import value_of

# More examples of a set make a page that is slow to open; all stand in the records.
MOST_ROWS = 400


class Row(NamedTuple):
    """An example as the page shows it.

    Attributes:
        prompt: What was asked.
        answer: The true answer, with what the answer at the end shares with it.
        before: The answer at step 0, with what it shares with the true one.
        after: The answer at the end, likewise.
        changed: Whether the two answers differ.
    """

    prompt: str
    answer: list[Piece]
    before: list[Piece]
    after: list[Piece]
    changed: bool


class ExampleSet(NamedTuple):
    """The examples of a set.

    Attributes:
        name: The set.
        rows: At most ``MOST_ROWS`` of them.
        left_out: How many more there are.
    """

    name: str
    rows: list[Row]
    left_out: int


class RunRow(NamedTuple):
    """A run of a comparison.

    Attributes:
        name: What the report calls it.
        method: Its method.
        front: Whether no other run beats it in what it has forgotten and kept.
        values: A value a column; None where the run has none.
    """

    name: str
    method: str
    front: bool
    values: list[Value | None]


def run_rows(runs: list[ReportedRun], names: list[str]) -> list[RunRow]:
    """Lay out the values of several runs.

    Args:
        runs: The runs.
        names: The metrics.
    """
    best = {run.name for run in best_runs(runs)}
    return [
        RunRow(
            run.name,
            run.method,
            run.name in best,
            [value_of(run.last, name) if name in run.last.summary else None for name in names],
        )
        for run in runs
    ]


def example_sets(run: ReportedRun) -> list[ExampleSet]:
    """Return the examples of every set whose questions were answered, the forget set first.

    Args:
        run: The run.
    """
    start = run.first.examples if run.first is not None and run.comparable else {}
    ranks = ("forget", "retain", "utility", "holdout")
    found = []
    for name, examples in sorted(run.last.examples.items(), key=lambda one: ranks.index(role_of(one[0]))):
        answered = [(key, record) for key, record in examples.items() if "generation" in record]
        rows = [_row(record, start.get(name, {}).get(key, {})) for key, record in answered[:MOST_ROWS]]
        if rows:
            found.append(ExampleSet(name, rows, len(answered) - len(rows)))
    return found


def lead(run: ReportedRun) -> str:
    """Say in a sentence what a run has done.

    Args:
        run: The run.
    """
    sets: dict[str, Any] = run.last.fingerprint.get("sets") or {}
    rows = ", ".join(f"{name} {found.get('rows', '?')}" for name, found in sets.items())
    what = f"{run.last.step} steps" if run.trained else f"measured after {run.last.step} steps"
    return f"{run.name}: {what}; rows measured: {rows}." if rows else f"{run.name}: {what}."


def _row(record: dict[str, Any], earlier: dict[str, Any]) -> Row:
    answer, after = str(record.get("answer") or ""), str(record.get("generation") or "")
    before = str(earlier.get("generation") or "")
    return Row(
        str(record.get("question") or "(text)"),
        mark_shared(answer, after),
        mark_shared(before, answer),
        mark_shared(after, answer),
        before != after,
    )
