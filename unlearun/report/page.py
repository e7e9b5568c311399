"""The page of a report: one HTML file that needs no network, whose texts are escaped."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import yaml

from unlearun.records import number, other_attacks
from unlearun.report.attacks import SAID, looked_into, standing_rows, ways, weakest
from unlearun.report.contents import example_sets, lead, run_rows
from unlearun.report.facts import config_differences, data_sets, facts, flat, short_model
from unlearun.report.findings import findings, findings_together, watched
from unlearun.report.pictures import pictures_of_run, pictures_of_runs
from unlearun.report.reported_run import ReportedRun
from unlearun.report.tasks import INTERVALS, task_rows
from unlearun.report.values import compared_names, direction, lines, main_lines

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

TEMPLATES = Path(__file__).with_name("templates")
HEADLINE = ("forget_quality", "model_utility", "forget/extraction_strength", "mia", "ks_forget_quality", "privleak")
CARDS = 5


class Column(NamedTuple):
    """A metric of a comparison.

    Attributes:
        name: The metric.
        direction: Which way is better, in words.
    """

    name: str
    direction: str


def run_page(run: ReportedRun) -> str:
    """Make the page of one run.

    Args:
        run: The run.
    """
    found = lines(run)
    tasks = task_rows([run])
    sets = example_sets(run)
    parts = [("warnings", "Warnings"), ("outcome", "Outcome")]
    parts += [("attacks", "Attacks")] if run.standing else []
    parts += [("pictures", "Pictures"), ("values", "Values")]
    parts += [("tasks", "Tasks")] if tasks else []
    parts += [("examples", "Examples")] if sets else []
    by_name = {line.name: line for line in found}
    return _render(
        "run.html",
        title=f"{run.method} on {short_model(run.last.fingerprint.get('model'))}" if run.trained else _measured(run),
        lead=lead(run),
        parts=[*parts, ("how", "How it was done")],
        footer=f"Run folder {run.name}. Values, one a line: report.csv; as text: report.md.",
        findings=findings(run),
        standing=run.standing,
        ways=ways(run.standing) if run.standing else [],
        weakest=weakest(run.standing) if run.standing else "",
        said=SAID,
        strangers="mia" in run.last.summary,
        looked=looked_into([run.standing]) if run.standing else [],
        headline=[by_name[name] for name in HEADLINE if name in by_name][:CARDS],
        lines=main_lines(found),
        compared=run.comparable,
        watched=bool(watched(run)),
        sets_measured=bool(run.last.examples),
        made_of=[(name, ", ".join(made_of)) for name, made_of in run.last.parts.items()],
        tasks=tasks,
        intervals=INTERVALS,
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
    standings = [run.standing for run in runs if run.standing]
    attacks, standing = standing_rows(standings)
    tasks = task_rows(runs)
    return _render(
        "comparison.html",
        title=f"{len(runs)} runs compared",
        lead=", ".join(f"{run.name} ({run.method})" for run in runs),
        parts=[
            ("warnings", "Warnings"),
            ("values", "Runs"),
            *([("attacks", "Attacks")] if standings else []),
            *([("tasks", "Tasks")] if tasks else []),
            ("pictures", "Pictures"),
            ("differences", "Differences"),
        ],
        footer="Values, one a line: report.csv; as text: report.md.",
        findings=findings_together(runs),
        columns=[Column(name, direction(name)) for name in names],
        rows=run_rows(runs, names),
        attacks=attacks,
        standings=standing,
        said=SAID,
        strangers=all("mia" in run.last.summary for run in runs),
        uneven=other_attacks(standings),
        tasks=tasks,
        intervals=INTERVALS,
        pictures=pictures_of_runs(runs),
        watched=all(watched(run) for run in runs),
        sets_measured=all(run.last.examples for run in runs),
        differences=config_differences([flat(run.config) for run in runs]),
    )


def _measured(run: ReportedRun) -> str:
    return f"{short_model(run.last.fingerprint.get('model'))}, measured"


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
    environment.filters["share"] = lambda value: "\N{EN DASH}" if math.isnan(value) else number(value)
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
