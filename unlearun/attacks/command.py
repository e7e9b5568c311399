"""``unlearun attack``: try to bring back what runs have made models forget."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unlearun import runs
from unlearun.arguments import OneLineParser
from unlearun.attacks.configs import read_attack, shipped_attacks
from unlearun.attacks.runner import Named, carry_out, without_attack
from unlearun.attacks.table import GOLD, details_table, judgement_table, standings_table
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
    attacks = [Named(*read_attack(name)) for name in chosen.attacks or shipped_attacks()]
    names = [named.name for named in attacks]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UnlearunError(f"two attacks are called {twice[0]!r}; give their files different names")
    folders = [path.resolve() for path in chosen.runs]
    if repeated := [path for path, folder in zip(chosen.runs, folders, strict=True) if folders.count(folder) > 1]:
        raise UnlearunError(f"{repeated[0]} is named twice; name each run once")
    if chosen.gold is not None:
        locate(chosen.gold)
    victims = [read_victim(run, chosen.precision) for run in chosen.runs]
    output = chosen.output or (chosen.runs[0] if len(chosen.runs) == 1 else shared_folder(chosen.runs))
    standings, judged = [], []
    for run, name, victim in zip(chosen.runs, short_names(folders), victims, strict=True):
        standing, judgement = attack_run(run, name, victim, attacks, chosen.gold, output / FOLDER, chosen.again)
        standings.append(standing)
        judged.append(judgement)
        write_report([run])
    page = write_report(list(chosen.runs), output)
    judged = [one for one in judged if one]
    if chosen.json:
        found = {"models": [one.to_json() for one in standings], "metrics": judged}
        sys.stdout.write(f"{json.dumps(found, ensure_ascii=False)}\n")
        return 0
    parts = [standings_table(standings), *([details_table(standings[0])] if len(standings) == 1 else [])]
    parts += [judgement_table(judged)] if judged else []
    skipped = dict.fromkeys(f"not tried: {what}: {why}" for one in standings for what, why in one.skipped.items())
    sys.stdout.write("\n\n".join([*parts, *(["\n".join(skipped)] if skipped else []), f"report: {page}"]) + "\n")
    return 0


def attack_run(
    run: Path,
    name: str,
    victim: Victim,
    attacks: Sequence[Named],
    gold: str | None,
    shared: Path,
    again: bool = False,
) -> tuple[Standing, dict[str, dict[str, float]]]:
    """Carry out attacks on a run and on its yardstick, and write down how it stands.

    Args:
        run: The run folder.
        name: What it is called.
        victim: Its model.
        attacks: What to try.
        gold: A model that never saw the forget set; None: the run's own retain reference, if its model is there.
        shared: Where what is found of that model is kept.
        again: Whether attacks are carried out though nothing has changed since.

    Returns:
        How it stands, and how its metrics fare.
    """
    found = carry_out(victim, attacks, run / FOLDER, again)
    unlearned = without_attack(victim, run / FOLDER, again)
    if victim.start is None:
        log.warning("%s: what was known before unlearning was not measured on these rows, so no share is known", run)
    yardstick = gold or own_gold(victim)
    method = str((runs.read_config(run) or {}).get("model", {}).get("class_path", "")).rpartition(".")[2]
    standing_gold, judged, plain = None, {}, None
    if yardstick is None:
        log.warning("%s: %s", run, NO_GOLD)
    else:
        other = Victim(
            yardstick,
            victim.data,
            victim.given_start,
            precision=victim.precision,
            dtype=victim.dtype,
            trusted=victim.trusted,
            seed=victim.seed,
        )
        kept = shared / f"gold-{Path(yardstick).name}-{other.digest()}"
        theirs, plain = carry_out(other, attacks, kept), without_attack(other, kept)
        standing_gold = stand(GOLD, yardstick, theirs, plain, victim.start, plain)
        judged = judge_metrics(found, unlearned, theirs, plain)
    standing = stand(name, method, found, unlearned, victim.start, plain, standing_gold)
    standing.write(run / FOLDER / SUMMARY)
    return standing, judged


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
    folder = Path(reference)
    return reference if (folder / "model").is_dir() else None


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
        help=f"these alone: of {', '.join(shipped_attacks())}, or YAML files; default: all that ship",
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
