"""The page of a report: one HTML file that needs no network, whose texts are escaped."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from unlearun.records import role_of
from unlearun.report.facts import config_differences, data_sets, facts, flat, short_model
from unlearun.report.figures_of_runs import X, Y, pareto_front
from unlearun.report.findings import findings, findings_together
from unlearun.report.marking import Piece, mark_shared
from unlearun.report.pictures import pictures_of_run, pictures_of_runs
from unlearun.report.reported_run import ReportedRun
from unlearun.report.values import Value, compared_names, direction, lines, main_lines, value_of

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

TEMPLATES = Path(__file__).with_name("templates")
HEADLINE = ("forget_quality", "model_utility", "forget/extraction_strength", "mia", "ks_forget_quality", "privleak")
CARDS = 5
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


class Column(NamedTuple):
    """A metric of a comparison.

    Attributes:
        name: The metric.
        direction: Which way is better, in words.
    """

    name: str
    direction: str


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


def run_page(run: ReportedRun) -> str:
    """Make the page of one run.

    Args:
        run: The run.
    """
    found = lines(run)
    sets = example_sets(run)
    parts = [("warnings", "Warnings"), ("outcome", "Outcome"), ("pictures", "Pictures"), ("values", "Values")]
    parts += [("examples", "Examples")] if sets else []
    by_name = {line.name: line for line in found}
    return _render(
        "run.html",
        title=f"{run.method} on {short_model(run.last.fingerprint.get('model'))}" if run.trained else _measured(run),
        lead=lead(run),
        parts=[*parts, ("how", "How it was done")],
        footer=f"Run folder {run.name}. Values, one a line: report.csv; as text: report.md.",
        findings=findings(run),
        headline=[by_name[name] for name in HEADLINE if name in by_name][:CARDS],
        lines=main_lines(found),
        compared=run.comparable,
        made_of=[(name, ", ".join(made_of)) for name, made_of in run.last.parts.items()],
        pictures=pictures_of_run(run),
        sets=sets,
        records=f"eval/step={run.last.step}.json",
        facts=facts(run),
        data_sets=data_sets(run.last),
        config=yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True) if run.config else "",
    )


def comparison_page(runs: list[ReportedRun]) -> str:
    """Make the page that compares several runs.

    Args:
        runs: At least two.
    """
    names = compared_names(runs)
    return _render(
        "comparison.html",
        title=f"{len(runs)} runs compared",
        lead=", ".join(f"{run.name} ({run.method})" for run in runs),
        parts=[
            ("warnings", "Warnings"),
            ("values", "Runs"),
            ("pictures", "Pictures"),
            ("differences", "Differences"),
        ],
        footer="Values, one a line: report.csv; as text: report.md.",
        findings=[*findings_together(runs), *(f"{run.name}: {one}" for run in runs for one in findings(run))],
        columns=[Column(name, direction(name)) for name in names],
        rows=run_rows(runs, names),
        pictures=pictures_of_runs(runs),
        differences=config_differences([flat(run.config) for run in runs]),
    )


def run_rows(runs: list[ReportedRun], names: list[str]) -> list[RunRow]:
    """Lay out the values of several runs.

    Args:
        runs: The runs.
        names: The metrics.
    """
    both = [run for run in runs if X in run.last.summary and Y in run.last.summary]
    best = {both[at].name for at in pareto_front([(run.last.summary[X], run.last.summary[Y]) for run in both])}
    return [
        RunRow(
            run.name,
            run.method,
            run.name in best and len(both) > 1,
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


def _measured(run: ReportedRun) -> str:
    return f"{short_model(run.last.fingerprint.get('model'))}, measured"


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


def _render(template: str, **values: object) -> str:
    script = (TEMPLATES / "script.js").read_text(encoding="utf-8")
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    # The page runs this script and no other, whatever the texts of rows are.
    digest = base64.b64encode(hashlib.sha256(f"\n{script}\n".encode()).digest()).decode()
    from markupsafe import Markup

    page = _environment().get_template(template)
    return page.render(script=Markup(script), style=Markup(style), script_hash=f"sha256-{digest}", **values)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    environment.filters["breakable"] = breakable
    return environment


def breakable(name: str) -> Markup:
    """Let a long name break behind its slashes, dots and underscores.

    Args:
        name: Of a metric or a setting.

    >>> breakable("forget/<b>")
    Markup('forget/<wbr>&lt;b&gt;')
    """
    from markupsafe import Markup, escape

    return Markup(re.sub(r"([/._])(?=\w|&)", r"\1<wbr>", str(escape(name))))
