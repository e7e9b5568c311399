"""The model card of an unlearned model, made of the figures of its run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from unlearun.files import write_whole
from unlearun.records import Standing, number, role_of
from unlearun.report.attacks import outdated, ways, weakest
from unlearun.report.cells import plain_cell
from unlearun.report.facts import data_sets, facts, short_model, versions
from unlearun.report.findings import findings
from unlearun.report.markdown import shown, table, tasks_of, values_table
from unlearun.report.reported_run import ReportedRun
from unlearun.report.values import MAIN, lines

FILE = "README.md"
_LIMITS = (
    "Forgetting was measured on the rows above alone. A high score does not prove that the knowledge is gone: other "
    "wordings, other languages, further training or an attack on the weights may bring it back. Membership inference "
    "values under 0.5, and privleak far above 0, mean that forgotten rows look stranger than rows the model never saw."
)
# An id of the Hugging Face hub: an owner and a name.
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
# These say where files lie on somebody's disk, or what the next table says in full.
_PRIVATE = ("model", "checkpoint", "retain model")


def write_card(run: ReportedRun, folder: Path) -> Path:
    """Write the card into a model folder.

    Args:
        run: The run that made the model.
        folder: A Hugging Face folder.

    Returns:
        The file.
    """
    write_whole(folder / FILE, card(run))
    return folder / FILE


def card(run: ReportedRun) -> str:
    """Write the card as Markdown with the hub's front matter. It names no place on this disk.

    Args:
        run: The run that made the model.
    """
    named = str(run.last.fingerprint.get("model") or "")
    model = named if Path(named).exists() else named.partition("@")[0]
    front = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        **({"base_model": model} if _HUB_ID.fullmatch(model) and not Path(model).exists() else {}),
        "tags": [*([] if run.learns else ["unlearning"]), "unlearun", run.method.lower()],
    }
    title = named if "base_model" in front else short_model(model).rpartition("/")[2]
    return f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n" + "\n\n".join(_parts(run, title)) + "\n"


def _parts(run: ReportedRun, model: str) -> Iterator[str]:
    yield f"# {plain_cell(model)} after {'training' if run.learns else 'unlearning'} with {plain_cell(run.method)}"
    version = versions(run.last.fingerprint).get("unlearun", "")
    what = "on chosen rows" if run.learns else "to forget chosen rows and keep the rest"
    yield (
        f"{plain_cell(model)}, trained for {run.last.step} steps with {plain_cell(run.method)} {what}, by unlearun "
        f"{version}."
    )
    if found := findings(run):
        yield "## Read this first"
        yield "\n".join(f"- {plain_cell(one)}" for one in found)
    yield "## What was measured"
    sets = data_sets(run.last)
    if sets:
        rows = [[one.name, one.role, one.rows, _file(one.source), one.digest] for one in sets]
        yield table(["set", "role", "rows", "source", "digest of its texts"], rows)
    chosen = [line for line in lines(run) if line.name in MAIN or "/" not in line.name or _of_utility(line.name)]
    yield values_table(chosen, run.comparable)
    yield "Values in brackets are 95% bootstrap intervals over examples."
    yield from tasks_of([run], ["value"])
    if run.standing is not None and run.standing.strongest is not None and not outdated(run):
        yield from _attacks(run.standing)
    yield "## How"
    yield table(["", ""], [row for row in facts(run) if row[0] not in _PRIVATE])
    if not run.learns:
        yield "## Limits"
        yield _LIMITS


def _attacks(standing: Standing) -> Iterator[str]:
    yield "## Attacks"
    against = "Weakest against" if standing.robustness < 1 else "Under every attack"
    yield f"Robustness {number(standing.robustness)}, 1 being best. {against} {plain_cell(weakest(standing))}."
    strongest = [standing.of_attack(name) for name in dict.fromkeys(one.attack for one in standing.tried)]
    chosen = {(one.attack, one.variant) for one in strongest if one is not None}
    rows = [
        [way.attack, way.variant, shown(way.share), shown(way.gold)]
        for way in ways(standing)
        if (way.attack, way.variant) in chosen
    ]
    yield table(["attack", "its strongest way", "share of the forgotten that came back", "in a retain model"], rows)


def _of_utility(name: str) -> bool:
    """Say whether a metric is what a utility set has to tell first."""
    group, _, metric = name.rpartition("/")
    return role_of(group) == "utility" and metric in ("probability", "rouge", "truth_ratio")


def _file(source: str) -> str:
    """Leave a hub's dataset as it is, and of a file the name, whatever the system that it lies on."""
    path, comma, rest = source.partition(", ")
    if _HUB_ID.fullmatch(path) and not path.endswith((".json", ".jsonl")) and not Path(path).exists():
        return source
    return re.split(r"[/\\]", f"{path}{comma}{rest}")[-1]
