"""A report as text, for an issue, a wiki or a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from unlearun.records import other_attacks
from unlearun.report.attacks import SAID, SCORES, looked_into, standing_rows, ways
from unlearun.report.cells import plain_cell
from unlearun.report.changes import Value
from unlearun.report.contents import example_sets, lead, run_rows
from unlearun.report.facts import config_differences, data_sets, facts, flat
from unlearun.report.findings import findings, findings_together
from unlearun.report.reported_run import ReportedRun
from unlearun.report.tasks import INTERVALS, task_rows
from unlearun.report.values import Line, compared_names, direction, lines, main_lines

SHOWN_ROWS = 10


def run_markdown(run: ReportedRun) -> str:
    """Write the report of one run.

    Args:
        run: The run.
    """
    parts = [f"# {plain_cell(run.method)}: {plain_cell(run.name)}", plain_cell(lead(run)), _warnings(findings(run))]
    parts += _attacks(run)
    parts += ["## Values", values_table(main_lines(lines(run)), run.comparable)]
    parts += [
        f"`{name}` is the harmonic mean of {', '.join(f'`{one}`' for one in made_of)}."
        for name, made_of in run.last.parts.items()
    ]
    parts += tasks_of([run], ["value"])
    for found in example_sets(run):
        header = ["prompt", "true answer", *(["before"] if run.comparable else []), "after"]
        rows = [
            [row.prompt, *("".join(piece.text for piece in part) for part in (row.answer, row.before, row.after))]
            for row in found.rows[:SHOWN_ROWS]
        ]
        rows = rows if run.comparable else [[*row[:2], row[3]] for row in rows]
        parts += [f"## Examples of {plain_cell(found.name)}", table(header, rows)]
    parts += ["## How it was done", table(["", ""], facts(run))]
    if sets := data_sets(run.last):
        parts += [table(["set", "role", "rows", "source", "digest of its texts"], sets)]
    return "\n\n".join(part for part in parts if part) + "\n"


def comparison_markdown(runs: list[ReportedRun]) -> str:
    """Write the report that compares several runs.

    Args:
        runs: At least two.
    """
    names = compared_names(runs)
    rows = run_rows(runs, names)
    found = findings_together(runs)
    values = [[name, direction(name), *(_cell(row.values[at]) for row in rows)] for at, name in enumerate(names)]
    front = ", ".join(row.name for row in rows if row.front)
    parts = [f"# {len(runs)} runs compared", _warnings(found), "## Values"]
    parts += [table(["metric", "better", *(row.name for row in rows)], values)]
    parts += [f"Beaten by no other in both forget_quality and model_utility: {plain_cell(front)}." if front else ""]
    parts += _standings(runs)
    parts += tasks_of(runs, [run.name for run in runs])
    differences = config_differences([flat(run.config) for run in runs])
    parts += ["## Differences of their configs"]
    parts += [
        table(["setting", *(run.name for run in runs)], [[name, *cells] for name, cells in differences])
        if differences
        else "There are none."
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _attacks(run: ReportedRun) -> list[str]:
    if run.standing is None:
        return []
    scores = {**{SCORES[name]: value for name, value in run.standing.score._asdict().items()}}
    scores["robustness"] = run.standing.robustness
    rows = [
        [
            f"{way.attack}, {way.variant}",
            way.column,
            *(shown(value) for value in (way.before, way.after, way.share, way.gold)),
        ]
        for way in ways(run.standing)
    ]
    header = ["attack", "measured by", "without", "with", "share that came back", "in the retain model"]
    values = table([*scores], [[shown(Value(value)) for value in scores.values()]])
    skipped = [f"- not tried: {plain_cell(f'{what}: {why}')}" for what, why in run.standing.skipped.items()]
    looked = [f"- {plain_cell(line)}" for line in looked_into([run.standing])]
    return ["## Is it really gone?", values, table(header, rows), SAID, "\n".join([*looked, *skipped])]


def _standings(runs: list[ReportedRun]) -> list[str]:
    standings = [run.standing for run in runs if run.standing]
    attacks, rows = standing_rows(standings)
    if not rows:
        return []
    header = ["model", *SCORES.values(), "robustness", *attacks, "weakest against"]
    cells = [
        [row.name, *(shown(value) for value in (*row.scores, row.robustness, *row.shares)), row.weakest] for row in rows
    ]
    return ["## Is it really gone?", table(header, cells), SAID, plain_cell(other_attacks(standings))]


def tasks_of(runs: list[ReportedRun], names: list[str]) -> list[str]:
    """Write what tasks of lm-evaluation-harness have found.

    Args:
        runs: The runs.
        names: A title a run.

    Returns:
        The paragraphs; none where no task has run.
    """
    rows = [[row.task, row.metric, *map(shown, row.values), row.asked] for row in task_rows(runs)]
    header = ["task", "metric", *names, "how it was asked"]
    return ["## Tasks of lm-evaluation-harness", table(header, rows), INTERVALS] if rows else []


def shown(value: Value | None) -> str:
    """Write a value with its interval; a dash where it is not known.

    Args:
        value: The value.
    """
    return "-" if value is None or not value.known else _cell(value)


def values_table(found: Sequence[Line], compared: bool) -> str:
    """Write the values of a run as a table.

    Args:
        found: Its lines.
        compared: Whether there are values before.
    """
    header = ["metric", *(["before"] if compared else []), "after", "better", "what it means"]
    rows = [
        [line.name, *([_cell(line.before)] if compared else []), _cell(line.after), line.direction, line.meaning]
        for line in found
    ]
    return table(header, rows)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table whose cells show their texts as they are.

    Args:
        header: One title a column.
        rows: One text a column each.
    """
    lines_ = [f"| {' | '.join(map(plain_cell, header))} |", f"|{' --- |' * len(header)}"]
    return "\n".join([*lines_, *(f"| {' | '.join(map(plain_cell, row))} |" for row in rows)])


def _cell(value: Value | None) -> str:
    if value is None:
        return "-"
    return f"{value.text} ({value.interval})" if value.interval else value.text


def _warnings(found: Sequence[str]) -> str:
    return "\n".join(["## Read this first", "", *(f"- {plain_cell(one)}" for one in found)]) if found else ""
