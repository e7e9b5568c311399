"""Attack runs and their yardsticks, and write down how they stand."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unlearun import runs as runs_of
from unlearun.attacks.configs import read_attack, shipped_attacks
from unlearun.attacks.runner import Named, carry_out, earlier, without_attack
from unlearun.attacks.table import GOLD
from unlearun.attacks.victim import Victim, read_victim
from unlearun.errors import UnlearunError
from unlearun.models.loading import locate
from unlearun.records import Standing, judge_metrics, stand
from unlearun.report import shared_folder, short_names, write_report
from unlearun.shipped import is_shipped

log = logging.getLogger(__name__)

FOLDER = "attacks"
SUMMARY = "summary.json"
NO_GOLD = (
    "there is no retain model to compare with, so Priv and Agg are unknown, and so is what chance brings back; name a "
    "model that never saw the forget set: --gold MODEL"
)
POCKET_RECORDS = "pocket/gold_records.json"


def attack(
    runs: Sequence[str | Path],
    attacks: Sequence[str] | None = None,
    gold: str | None = None,
    output: str | Path | None = None,
    precision: str | None = None,
    again: bool = False,
) -> list[Standing]:
    """Try to bring back what runs have made models forget.

    What is found stays in each run's folder ``attacks``, and an attack that was carried out with the same settings is
    not repeated. The report of each run, and one of all, is written again.

    Args:
        runs: Folders of runs that have ended.
        attacks: Names of shipped attacks, or YAML files; None for all that ship.
        gold: A model that never saw the forget set, attacked alike; None for that of a run's ``retain_reference``.
        output: Where the report of all goes; None: into the run folder, or that which holds all.
        precision: The Trainer's; None for that of each run.
        again: Whether attacks are carried out though nothing has changed since.

    Returns:
        How each model stands, in the order given.

    Raises:
        UnlearunError: A folder holds no run that has ended, or there is no such attack or model.
    """
    paths = [Path(run) for run in runs]
    if not paths:
        raise UnlearunError("no run is named; name the folder of one that has ended, such as outputs/rmu/1")
    chosen = [Named(*read_attack(name)) for name in (shipped_attacks() if attacks is None else attacks)]
    names = [named.name for named in chosen]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UnlearunError(f"two attacks are called {twice[0]!r}; give their files different names")
    folders = [path.resolve() for path in paths]
    if repeated := [path for path, folder in zip(paths, folders, strict=True) if folders.count(folder) > 1]:
        raise UnlearunError(f"{repeated[0]} is named twice; name each run once")
    if gold is not None:
        locate(gold)
    victims = [read_victim(run, precision) for run in paths]
    where = report_folder(paths, output)
    standings = []
    for run, name, victim in zip(paths, short_names(folders), victims, strict=True):
        standings.append(_attack_run(run, name, victim, chosen, gold, where / FOLDER, again))
        write_report([run])
    write_report(paths, where)
    return standings


def report_folder(runs: Sequence[Path], output: str | Path | None) -> Path:
    """Return where the report of all runs goes.

    Args:
        runs: Their folders.
        output: What the user named, if anything.
    """
    if output is not None:
        return Path(output)
    return runs[0] if len(runs) == 1 else shared_folder(runs)


def _attack_run(
    run: Path, name: str, victim: Victim, attacks: Sequence[Named], gold: str | None, shared: Path, again: bool
) -> Standing:
    found = [*carry_out(victim, attacks, run / FOLDER, again), *earlier(victim, attacks, run / FOLDER)]
    unlearned = without_attack(victim, run / FOLDER, again)
    if victim.start is None:
        log.warning("%s: what was known before unlearning was not measured on these rows, so no share is known", run)
    yardstick = gold or own_gold(victim)
    method = str((runs_of.read_config(run) or {}).get("model", {}).get("class_path", "")).rpartition(".")[2]
    if yardstick is None:
        log.warning("%s: %s", run, NO_GOLD)
        standing = stand(name, method, found, unlearned, victim.start, None)
    else:
        other = victim.instead(yardstick)
        kept = shared / f"gold-{Path(yardstick).name}-{other.digest()}"
        theirs = [*carry_out(other, attacks, kept), *earlier(other, attacks, kept)]
        plain = without_attack(other, kept)
        standing = stand(name, method, found, unlearned, victim.start, plain)
        standing.gold = stand(GOLD, yardstick, theirs, plain, victim.start, plain)
        standing.metrics = judge_metrics(found, unlearned, theirs, plain)
    standing.write(run / FOLDER / SUMMARY)
    return standing


def own_gold(victim: Victim) -> str | None:
    """Return the model behind a run's retain reference, if it is there.

    Args:
        victim: The run's model and data.
    """
    reference: Any = victim.data.get("retain_reference")
    if not isinstance(reference, str):
        return None
    if reference == POCKET_RECORDS and is_shipped(reference):
        return "pocket-gold"
    return reference if (Path(reference) / "model").is_dir() else None
