"""How a model stands against all attacks: what each brought back, the largest share, and beside it the one score."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from unlearun.errors import UnlearunError
from unlearun.files import write_whole
from unlearun.records.attacked import Attacked, Curve
from unlearun.records.evaluation import Evaluation, finite, read_json
from unlearun.records.forget_rows import FORGET, of_rows
from unlearun.records.metric_faith import quantisation_faith, relearning_faith
from unlearun.records.one_score import OneScore, one_score
from unlearun.records.recovery import Recovery, recovery

# Of the values of an evaluation those that are judged, and whether they fall as knowledge rises.
JUDGED = {
    "forget/extraction_strength": False,
    "forget/exact_memorization": False,
    "forget/probability": False,
    "forget/verbatim_memorization": False,
    "forget/rouge": False,
    "forget/truth_ratio": True,
    "forget_quality": True,
    "mia": False,
    "mia_zlib": False,
    "mia_min_k": False,
    "mia_min_k_plus_plus": False,
}


@dataclass(frozen=True)
class Tried:
    """One way of an attack, and what it brought back.

    Attributes:
        attack: What it is called.
        variant: The way, in words.
        behavioural: Whether it counts into robustness.
        measured: The two columns of `main` and `beside`.
        main: What came back by the first column.
        beside: What came back by the second.
        curve: What came back over time, where it takes time.
    """

    attack: str
    variant: str
    behavioural: bool
    measured: tuple[str, str]
    main: Recovery
    beside: Recovery
    curve: Curve = field(default_factory=list)


@dataclass
class Standing:
    """A model against all attacks.

    Attributes:
        name: What it is called.
        method: What made it forget.
        score: What it knows, gives away and is good for, without an attack.
        tried: All ways of all attacks.
        figures: What attacks that only look have found, by attack.
        skipped: What could not be tried, and why.
        seconds: What each attack took.
        gold: The same of a model that never saw the forget set, attacked alike; None where there is none.
        metrics: R and Q of each metric: see `judge_metrics`; empty without such a model.
    """

    name: str
    method: str
    score: OneScore
    tried: list[Tried]
    figures: dict[str, dict[str, Any]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    gold: Standing | None = None
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def strongest(self) -> Tried | None:
        """The way of a behavioural attack that brought back the largest share; None where no share is known."""
        return strongest(one for one in self.tried if one.behavioural)

    @property
    def robustness(self) -> float:
        """1 - the largest share that a behavioural attack brought back; NaN where none is known."""
        found = self.strongest
        return math.nan if found is None else 1 - found.main.share

    def of_attack(self, attack: str) -> Tried | None:
        """Return the strongest way of an attack, or None where no share is known.

        Args:
            attack: What it is called.
        """
        return strongest(one for one in self.tried if one.attack == attack)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values, with what is derived of them."""
        found = self.strongest
        plain: dict[str, Any] = {
            "name": self.name,
            "method": self.method,
            "score": self.score._asdict(),
            "robustness": self.robustness,
            "weakest": None if found is None else {"attack": found.attack, "variant": found.variant},
            "tried": [
                {**asdict(one), "main": one.main._asdict(), "beside": one.beside._asdict()} for one in self.tried
            ],
            "figures": self.figures,
            "skipped": self.skipped,
            "seconds": self.seconds,
            "gold": None if self.gold is None else self.gold.to_json(),
            "metrics": self.metrics,
        }
        return finite(plain)

    def write(self, file: Path) -> None:
        """Write it as JSON, whole or not at all.

        Args:
            file: Where to.
        """
        write_whole(file, json.dumps(self.to_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n")

    @classmethod
    def read(cls, file: Path) -> Standing | None:
        """Read what `write` wrote; None where there is no such file, or it is none of ours.

        Args:
            file: Where it is.
        """
        try:
            return _of_json(read_json(file))
        except (UnlearunError, KeyError, TypeError, ValueError, AttributeError):
            return None


def strongest(tried: Iterable[Tried]) -> Tried | None:
    """Return the way that brought back the largest share; None where no share is known.

    Args:
        tried: Ways of attacks.
    """
    known = [one for one in tried if not math.isnan(one.main.share)]
    return max(known, key=lambda one: (one.main.share, _known(one.beside.share)), default=None)


def stand(
    name: str,
    method: str,
    attacks: Sequence[Attacked],
    unlearned: Evaluation,
    start: Evaluation | None,
    retain: Evaluation | None,
) -> Standing:
    """Put together what all attacks on a model have found.

    Args:
        name: What the model is called.
        method: What made it forget.
        attacks: What each has found.
        unlearned: What was found without an attack; its forget set is called ``forget``, as that of the others.
        start: What was found before unlearning, if that is known.
        retain: What was found of a model that never saw the forget set, if there is one.
    """
    before = {} if start is None else start.examples.get(FORGET, {})
    after = unlearned.examples.get(FORGET, {})
    tried = []
    for attack in attacks:
        for variant, found in attack.variants.items():
            rows = found.examples.get(FORGET, {})
            main, beside = (recovery(before, after, rows, column) for column in attack.measured)
            curve = attack.curves.get(variant, [])
            tried.append(Tried(attack.attack, variant, attack.behavioural, attack.measured, main, beside, curve))
    return Standing(
        name,
        method,
        one_score(unlearned, start, retain),
        tried,
        {attack.attack: attack.figures for attack in attacks if attack.figures},
        {f"{attack.attack}, {what}": why for attack in attacks for what, why in attack.skipped.items()},
        {attack.attack: attack.seconds for attack in attacks},
    )


def with_golds(standings: Sequence[Standing]) -> list[Standing]:
    """Return models and, last and each once, the retain models that they were compared with.

    Args:
        standings: One a model.
    """
    golds: list[Standing] = []
    for one in standings:
        if one.gold is not None and all(one.gold.to_json() != other.to_json() for other in golds):
            golds.append(one.gold)
    return [*standings, *golds]


def judge_metrics(
    attacks: Sequence[Attacked], unlearned: Evaluation, gold_attacks: Sequence[Attacked], gold: Evaluation
) -> dict[str, dict[str, float]]:
    """Judge metrics by what relearning and quantisation do to them.

    Args:
        attacks: What attacks on an unlearned model have found.
        unlearned: What was found of it without an attack.
        gold_attacks: What the same attacks on a model that never saw the forget set have found.
        gold: What was found of that without an attack.

    Returns:
        For each metric R, the least of all ways of relearning on forget rows, and Q, the least of all quantisations, as
        far as they were tried; see `relearning_faith` and `quantisation_faith`.
    """
    judged: dict[str, dict[str, float]] = {}
    theirs = {(one.attack, variant): found for one in gold_attacks for variant, found in one.variants.items()}
    for attack in attacks:
        kind = str(attack.settings.get("class_path", "")).rpartition(".")[2]
        for variant, found in attack.variants.items():
            kept = {*found.examples.get(FORGET, {})}
            before, gold_before = (of_rows(one, kept) for one in (unlearned, gold))
            gold_found = theirs.get((attack.attack, variant))
            for metric in JUDGED:
                sides = [_knowledge(one, metric) for one in (before, found)]
                if kind == "Quantise":
                    _lower(judged, metric, "Q", quantisation_faith(*sides))
                elif kind == "Relearn" and "forget rows" in variant and gold_found is not None:
                    golds = [_knowledge(one, metric) for one in (gold_before, gold_found)]
                    _lower(judged, metric, "R", relearning_faith(golds[0], golds[1], sides[0], sides[1]))
    return judged


def _lower(judged: dict[str, dict[str, float]], metric: str, name: str, value: float) -> None:
    if not math.isnan(value):
        values = judged.setdefault(metric, {})
        values[name] = min(value, values.get(name, value))


def _knowledge(evaluation: Evaluation, metric: str) -> float:
    value = evaluation.summary.get(metric, math.nan)
    return 1 - value if JUDGED[metric] else value


def _known(value: float) -> float:
    return -1.0 if math.isnan(value) else value


def _of_json(stored: Mapping[str, Any]) -> Standing:
    tried = [
        Tried(
            str(one["attack"]),
            str(one["variant"]),
            bool(one["behavioural"]),
            (str(one["measured"][0]), str(one["measured"][1])),
            _recovery(one["main"]),
            _recovery(one["beside"]),
            [(int(step), _number(first), _number(second)) for step, first, second in one["curve"]],
        )
        for one in stored["tried"]
    ]
    gold = stored["gold"]
    return Standing(
        str(stored["name"]),
        str(stored["method"]),
        OneScore(**{name: _number(value) for name, value in stored["score"].items()}),
        tried,
        dict(stored["figures"]),
        dict(stored["skipped"]),
        dict(stored["seconds"]),
        None if gold is None else _of_json(gold),
        dict(stored["metrics"]),
    )


def _recovery(stored: Mapping[str, Any]) -> Recovery:
    return Recovery(**{name: _number(value) for name, value in stored.items()})


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
