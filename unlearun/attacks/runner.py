"""Run attacks on models, each once: what was found stays in the run folder."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unlearun.attacks.base import Attack, check_outcome
from unlearun.attacks.configs import make_attack
from unlearun.attacks.facts import digest_of
from unlearun.attacks.victim import Victim
from unlearun.errors import UnlearunError
from unlearun.files import check_writable
from unlearun.models import quantisation_hushed
from unlearun.packages import is_installed_now
from unlearun.records import Attacked, Evaluation
from unlearun.shipped import find_asset

log = logging.getLogger(__name__)

PLAIN = "unattacked"
# What was said of the data when the run was made, and what Lightning says of every Trainer.
_TALKATIVE = (
    "lightning.pytorch.utilities.rank_zero",
    "lightning.fabric.utilities.seed",
    "unlearun.models.policy",
    "unlearun.data",
)


class Named:
    """An attack with its name and config.

    Args:
        name: What it is called.
        attack: The attack.
        config: Its class and all of its arguments.
    """

    def __init__(self, name: str, attack: Attack, config: Mapping[str, Any]) -> None:
        self.name = name
        self.attack = attack
        self.config = dict(config)


def carry_out(victim: Victim, attacks: Sequence[Named], folder: Path, again: bool = False) -> list[Attacked]:
    """Carry out attacks on a model, or read what they found before.

    Args:
        victim: The model.
        attacks: What to try.
        folder: Where what they find is kept, a file each.
        again: Whether they are carried out though nothing has changed since.

    Returns:
        What each has found.
    """
    found = []
    check_writable(folder)
    for named in attacks:
        key = _key(victim, named)
        known = None if again else Attacked.read(folder / f"{named.name}.json")
        if known is not None and known.key == key and not any(map(is_installed_now, known.skipped.values())):
            found.append(known)
            continue
        log.info("%s: %s", victim.model, named.name)
        start = time.perf_counter()
        with quietly():
            outcome = named.attack.run(victim)
        check_outcome(named.name, named.attack.measured, outcome)
        record = Attacked(
            named.name,
            key,
            named.config,
            named.attack.behavioural,
            named.attack.measured,
            outcome.variants,
            outcome.curves,
            outcome.figures,
            outcome.skipped,
            time.perf_counter() - start,
            outcome.compared,
        )
        record.write(folder / f"{named.name}.json")
        found.append(record)
    return found


def earlier(victim: Victim, attacks: Sequence[Named], folder: Path) -> list[Attacked]:
    """Return what other attacks have found before of the very same model and data.

    Args:
        victim: The model.
        attacks: Those that are left out.
        folder: See `carry_out`.
    """
    names = {PLAIN, *(named.name for named in attacks)}
    known = {file.stem: Attacked.read(file) for file in sorted(folder.glob("*.json")) if file.stem not in names}
    same, others = [], []
    for name, one in known.items():
        if one is None or one.attack != name:  # no attack's file, or a copy of one
            continue
        named = _named(one)
        if named is not None and one.key == _key(victim, named):
            same.append(one)
        else:
            others.append(name)
    if others:
        log.warning(
            "%s: what %s had found does not count any more, for the model, the data or the attack was another; name "
            "it to carry it out again",
            folder,
            ", ".join(others),
        )
    return same


def without_attack(victim: Victim, folder: Path, again: bool = False) -> Evaluation:
    """Return what is found of a model without an attack, measured once.

    Args:
        victim: The model.
        folder: See `carry_out`.
        again: See `carry_out`.
    """
    check_writable(folder)
    key = digest_of(victim.facts)
    known = None if again else Attacked.read(folder / f"{PLAIN}.json")
    if known is not None and known.key == key and PLAIN in known.variants:
        victim.unlearned = known.variants[PLAIN]
        return victim.unlearned
    with quietly():
        if again:
            victim.unlearned = victim.measured_anew()
        found = victim.unlearned
    Attacked(PLAIN, key, {}, False, ("extraction_strength", "probability"), {PLAIN: found}).write(
        folder / f"{PLAIN}.json"
    )
    return found


@contextmanager
def quietly() -> Iterator[None]:
    """Keep what Lightning and quantisers tell of every model and Trainer off the screen."""
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with quantisation_hushed():
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _key(victim: Victim, named: Named) -> str:
    """Say by 32 digits what the outcome of an attack follows from: the model, the data, its settings and its files."""
    facts = {**victim.facts, "attack": named.config, "files": [_content(source) for source in named.attack.reads()]}
    if named.attack.compares_answers:
        facts["answers"] = victim.said_at_start
    if named.attack.reads_rows:
        facts["rows"] = [row.values for row in victim.raw_forget_rows()]
    return digest_of(facts)


def _named(known: Attacked) -> Named | None:
    """Make an attack again of what its file says of it; None where that cannot be done."""
    try:
        return Named(known.attack, *make_attack(known.settings))
    except UnlearunError:
        return None


def _content(source: Any) -> str:  # noqa: ANN401 - any source
    path = source.get("path") if isinstance(source, Mapping) else source
    if not isinstance(path, str):
        return str(source)
    file = find_asset(path) if not Path(path).exists() else Path(path)
    return hashlib.blake2b(file.read_bytes()).hexdigest() if file is not None and file.is_file() else path
