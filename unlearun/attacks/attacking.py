"""Attack runs and their yardsticks, and write down how they stand."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from unlearun import runs as runs_of
from unlearun.attacks.configs import read_attack, shipped_attacks
from unlearun.attacks.facts import digest_of
from unlearun.attacks.runner import Named, carry_out, earlier, without_attack
from unlearun.attacks.table import GOLD
from unlearun.attacks.victim import Victim
from unlearun.attacks.victim_of_run import has_weights, read_victim
from unlearun.errors import UnlearunError, check_choice, shown
from unlearun.files import check_writable
from unlearun.models import load_tokenizer
from unlearun.models.loading import locate
from unlearun.own_code import look_here
from unlearun.records import (
    Attacked,
    Evaluation,
    Standing,
    as_forget,
    evaluation_files,
    judge_metrics,
    measured_otherwise,
    read_reference,
    stand,
    summarise,
)
from unlearun.report import read_runs, shared_folder, short_names, write_report
from unlearun.shipped import is_shipped

log = logging.getLogger(__name__)

FOLDER = "attacks"
SUMMARY = "summary.json"
NO_GOLD = (
    "there is no retain model to compare with, so Priv and Agg are unknown, and so is what chance brings back; name a "
    "model that never saw the forget set: --gold MODEL"
)
NO_GOLD_MODEL = (
    "the retain model behind its retain_reference is not here, so what chance brings back is unknown; name it: "
    "--gold MODEL"
)
PRECISIONS = ("32-true", "16-true", "16-mixed", "bf16-true", "bf16-mixed", "64-true")
MEASURES = "verbose"  # an argument of validate and test, and none of fit
POCKET_RECORDS = "pocket/gold_records.json"


def attack(
    runs: str | Path | Sequence[str | Path],
    attacks: str | Path | Sequence[str | Path] | None = None,
    gold: str | Path | None = None,
    output: str | Path | None = None,
    precision: str | None = None,
    again: bool = False,
) -> list[Standing]:
    """Try to bring back what runs have made models forget.

    What is found stays in each run's folder ``attacks``, and an attack that was carried out with the same settings is
    not repeated. The report of each run, and one of all, is written again.

    Args:
        runs: Folders of runs that have ended, or one.
        attacks: Names of shipped attacks, or YAML files, or one; None for all that ship. What others have found of the
            same model before still counts.
        gold: A model that never saw the forget set, attacked alike; None for that of a run's ``retain_reference``.
        output: Where the report of all goes; None: into the run folder, or that which holds all.
        precision: The Trainer's; None for that of each run.
        again: Whether attacks are carried out though nothing has changed since.

    Returns:
        How each model stands, in the order given.

    Raises:
        UnlearunError: A folder holds no run that has ended, or there is no such attack or model.
    """
    look_here()  # for attacks and metrics
    paths = [Path(run) for run in _names(runs, "runs")]
    named_attacks = None if attacks is None else [str(name) for name in _names(attacks, "attacks")]
    if not paths:
        raise UnlearunError("no run is named; name the folder of one that has ended, such as outputs/rmu/1")
    if named_attacks is not None and not named_attacks:
        raise UnlearunError("attacks is empty; name some, or leave it out for all that ship")
    chosen = [Named(*read_attack(name)) for name in (shipped_attacks() if named_attacks is None else named_attacks)]
    names = [named.name for named in chosen]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UnlearunError(f"two attacks are called {twice[0]!r}; give their files different names")
    folders = [path.resolve() for path in paths]
    if repeated := [path for path, folder in zip(paths, folders, strict=True) if folders.count(folder) > 1]:
        raise UnlearunError(f"{repeated[0]} is named twice; name each run once")
    if precision is not None:
        check_choice("precision", precision, PRECISIONS)
    where = report_folder(paths, output)
    victims = [read_victim(run, precision) for run in paths]
    if gold is not None:
        gold = _check_gold(str(gold), folders)
    read_runs(paths)  # whose report could not be written, is not attacked
    for named, victim in product(chosen, victims):
        named.attack.check(victim)
    for folder in (*(path / FOLDER for path in paths), where):
        check_writable(folder)
    shared = Golds(where / FOLDER, again)
    standings = []
    for run, name, victim in zip(paths, short_names(folders), victims, strict=True):
        standings.append(_attack_run(run, name, victim, chosen, gold, shared, again))
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
        return Path(output).expanduser()
    return runs[0] if len(runs) == 1 else shared_folder(runs)


class Golds:
    """Retain models, each attacked once for all runs that have the same data.

    Args:
        folder: Where what is found of them is kept.
        again: Whether they are attacked though nothing has changed since.
    """

    def __init__(self, folder: Path, again: bool) -> None:
        self.folder = folder
        self.again = again
        self._done: set[Path] = set()

    def attack(self, victim: Victim, model: str, attacks: Sequence[Named]) -> tuple[list[Attacked], Evaluation]:
        """Attack the retain model of a run; return what that has found, and what is found without an attack.

        Args:
            victim: The run's model and data.
            model: The retain model.
            attacks: What to try.
        """
        other = victim.instead(model)
        kept = self.folder / f"gold-{Path(model).name}-{digest_of(other.facts)[:8]}"
        again = self.again and kept not in self._done
        plain = without_attack(other, kept, again)
        found = [*carry_out(other, attacks, kept, again), *earlier(other, attacks, kept)]
        self._done.add(kept)
        return found, plain


def _attack_run(
    run: Path, name: str, victim: Victim, attacks: Sequence[Named], gold: str | None, golds: Golds, again: bool
) -> Standing:
    unlearned = without_attack(victim, run / FOLDER, again)  # first, for it says whether the model can be measured
    found = [*carry_out(victim, attacks, run / FOLDER, again), *earlier(victim, attacks, run / FOLDER)]
    if victim.start is None:
        log.warning("%s: what was known before unlearning was not measured on these rows, so no share is known", run)
    elif measured_otherwise(unlearned, victim.start, ("retain", "utility")):
        log.warning(
            "%s: what the model was good for before was measured on other rows, so Util and Agg are unknown", run
        )
    yardstick = gold or own_gold(victim)
    model = (runs_of.read_config(run) or {}).get("model")
    method = str(model.get("class_path", "") if isinstance(model, Mapping) else model or "").rpartition(".")[2]
    if yardstick is None:
        records = _own_records(victim)
        log.warning("%s: %s", run, NO_GOLD if records is None else NO_GOLD_MODEL)
        standing = stand(name, method, found, unlearned, victim.start, records)
    else:
        theirs, plain = golds.attack(victim, yardstick, attacks)
        standing = stand(name, method, found, unlearned, victim.start, plain)
        standing.gold = stand(GOLD, yardstick, theirs, plain, victim.start, plain)
        standing.metrics = judge_metrics(found, unlearned, theirs, plain, victim.start)
    standing.step = max(evaluation_files(run), default=None)
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
        # Shipped configs name it; with other data, or another model, the run has left it out.
        return "pocket-gold" if victim.fits_reference(read_reference(reference), reference) else None
    run = Path(reference)
    run = run.parent.parent if run.is_file() and run.parent.name == "eval" else run
    model = _model_of(str(run))
    if model == str(run) and not (run / "model").is_dir():
        return None
    try:
        _check_weights(model, reference)
    except UnlearunError:
        return None
    return model


def _names(given: Any, what: str) -> list[str | Path]:  # noqa: ANN401 - what Python lets through
    """Return what was named, be it one or several."""
    names = [given] if isinstance(given, (str, Path)) else given
    if not isinstance(names, Sequence) or not all(isinstance(name, (str, Path)) for name in names):
        raise UnlearunError(f"{what} is {shown(given)}; expected a name or a path, or a list of them")
    return list(names)


def _check_gold(named: str, attacked: Sequence[Path]) -> str:
    """Return the model that the user calls one that never saw the forget set, if there is such a model."""
    model = _model_of(named)
    try:
        load_tokenizer(model)
        folder = _check_weights(model, named)
    except UnlearunError as error:
        raise UnlearunError(f"--gold: {error}") from error
    if any(folder.resolve() in (run.resolve(), (run / "model").resolve()) for run in attacked):
        raise UnlearunError(
            f"--gold: {named} is a run that is attacked itself; name a model that never saw the forget set"
        )
    return model


def _check_weights(model: str, named: str) -> Path:
    """Return where a model lies, or its hub id, if it has weights there.

    Args:
        model: See `locate`.
        named: What the user named.

    Raises:
        UnlearunError: It has none, or is not there.
    """
    where, how = locate(model)
    folder = Path(where)
    if folder.is_dir() and not how and not has_weights(folder):
        raise UnlearunError(f"{named} has no weights")
    return folder


def _model_of(named: str) -> str:
    """Return the model that a run of validate was about, which has none in its folder; any other name as it is."""
    folder = Path(named)
    if any((folder / inner).exists() for inner in ("model", "checkpoints", "config.json")):
        return named  # a model, or a fit, whose own is not the one that it began with
    config = runs_of.read_config(folder) or {}
    model = config.get("model")
    measured = MEASURES in config and not config.get("ckpt_path")
    if not isinstance(model, Mapping) or not measured or any(evaluation_files(folder)):
        return named  # a fit that was broken off, or what was measured is not the model as it was loaded
    settings = model.get("init_args")
    name = settings.get("model") if isinstance(settings, Mapping) else None
    return name if isinstance(name, str) else named


def _own_records(victim: Victim) -> Evaluation | None:
    """Return the records of a run's retain reference, whose model is not there, if they are of its rows."""
    reference: Any = victim.data.get("retain_reference")
    if not isinstance(reference, str):
        return None
    try:
        records = read_reference(reference)
    except UnlearunError:
        return None
    if not victim.fits_reference(records, reference):
        return None
    if not records.summary:
        summarise(records)
    return as_forget(records, victim.forget_set)
