"""How a model stands against all attacks: what each brought back, the largest share, and beside it the one score."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from unlearun.errors import UnlearunError
from unlearun.files import write_whole
from unlearun.records.attacked import Attacked, Curve
from unlearun.records.evaluation import Evaluation, finite, number_of, read_json
from unlearun.records.forget_rows import FORGET, mean_of
from unlearun.records.metric_faith import quantisation_faith, relearning_faith
from unlearun.records.one_score import OneScore, one_score, utility
from unlearun.records.recovery import LEAST_FORGOTTEN, TOLERANCE, Recovery, recovery

# Of the values of an evaluation those that are judged, and whether they fall as knowledge rises. The truth ratio is
# taken as p_c/(p_c + p_w), which rises with knowledge all the way; what its mean makes of it does not.
JUDGED = {
    "forget/extraction_strength": False,
    "forget/exact_memorization": False,
    "forget/probability": False,
    "forget/verbatim_memorization": False,
    "forget/rouge": False,
    "forget/truth_ratio": False,
    "forget_quality": True,
    "mia": False,
    "mia_zlib": False,
    "mia_min_k": False,
    "mia_min_k_plus_plus": False,
}
ES, TRUTH_RATIO = "extraction_strength", "truth_ratio"
# A model that has lost more is of no use, and tells nothing of a metric.
LEAST_UTILITY = 0.8


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
        forgotten: By how much the extraction strength fell, start - unlearned; NaN where that is not known.
        step: After how many steps of its run the model was attacked; None where that is not known.
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
    forgotten: float = math.nan
    step: int | None = None

    @property
    def strongest(self) -> Tried | None:
        """The way of a behavioural attack that brought back the largest share.

        None where no share is known, or the extraction strength fell by less than 0.05: of a model that has forgotten
        nothing, a share of greedy answers that were lost says nothing.
        """
        if self.forgotten < LEAST_FORGOTTEN - TOLERANCE:
            return None
        return strongest(one for one in self.tried if one.behavioural)

    @property
    def robustness(self) -> float:
        """1 - the largest share that a behavioural attack brought back; NaN where none is known."""
        found = self.strongest
        return math.nan if found is None else 1 - found.main.share

    @property
    def carried_out(self) -> dict[str, set[str]]:
        """The behavioural attacks that could be carried out, and the ways of each."""
        found: dict[str, set[str]] = {}
        for one in self.tried:
            if one.behavioural:
                found.setdefault(one.attack, set()).add(one.variant)
        return found

    def has_tried(self, attack: str) -> bool:
        """Say whether an attack could be carried out, in one way at least.

        Args:
            attack: What it is called.
        """
        return any(one.attack == attack for one in self.tried)

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
            "forgotten": self.forgotten,
            "step": self.step,
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
        except (UnlearunError, KeyError, TypeError, ValueError, AttributeError, OverflowError):
            return None


def strongest(tried: Iterable[Tried]) -> Tried | None:
    """Return the way that brought back the largest share; None where no share is known.

    Args:
        tried: Ways of attacks.
    """
    known = [one for one in tried if not math.isnan(one.main.share)]
    return max(known, key=lambda one: (one.main.share, _known(one.beside.share)), default=None)


def layer_values(figures: Mapping[str, Any], name: str) -> list[float]:
    """Return what an attack that looks inside has found at each layer; nothing where that is no list of numbers.

    Args:
        figures: What it has found.
        name: Of a quantity, such as ``lens``; null, of a broken model, is NaN.

    >>> layer_values({"lens": [0.1, None]}, "lens"), layer_values({"lens": ["high"]}, "lens")
    ([0.1, nan], [])
    """
    values = figures.get(name)
    if not isinstance(values, list) or not all(value is None or isinstance(value, (int, float)) for value in values):
        return []
    return [number_of(value) for value in values]


def best_layer(values: Sequence[float]) -> tuple[int, float]:
    """Return the layer with the highest value, and the value; layers that have none, of a broken model, do not count.

    Args:
        values: One a layer.

    >>> best_layer([0.1, 0.4, 0.2])
    (1, 0.4)
    """
    known = [-1.0 if math.isnan(value) else value for value in values]
    layer = max(range(len(known)), key=lambda at: known[at])
    return layer, known[layer] if known[layer] >= 0 else math.nan


def other_attacks(standings: Sequence[Standing]) -> str:
    """Say that models did not go through the same attacks, so that their robustness cannot be compared; else nothing.

    Args:
        standings: The models, retain models among them.
    """
    tried = {one.name: one.carried_out for one in standings}
    every: dict[str, set[str]] = {}
    for found in tried.values():
        for attack, ways in found.items():
            every.setdefault(attack, set()).update(ways)
    lacking = {
        name: [
            f"{attack} ({', '.join(sorted(missing))})" if attack in found else attack
            for attack in sorted(every)
            if (missing := every[attack] - found.get(attack, set()))
        ]
        for name, found in tried.items()
    }
    if not any(lacking.values()):
        return ""
    said = "; ".join(f"{name} without {', '.join(attacks)}" for name, attacks in lacking.items() if attacks)
    return f"Not all went through the same attacks, so do not compare how robust they are: {said}."


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
            sides = attack.compared.get(variant, {"start": before, "unlearned": after})
            known, plain = sides.get("start", {}), sides.get("unlearned", {})
            main, beside = (recovery(known, plain, rows, column) for column in attack.measured)
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
        forgotten=math.nan if start is None else mean_of(start, ES) - mean_of(unlearned, ES),
    )


def with_golds(standings: Sequence[Standing]) -> list[Standing]:
    """Return models and, last and each once, the retain models that they were compared with.

    Args:
        standings: One a model.
    """
    golds: dict[str, Standing] = {}
    for one in standings:
        if one.gold is not None and all(_found(one.gold) != _found(other) for other in golds.values()):
            golds[one.name] = one.gold
    if len(golds) > 1:  # measured on other data, or attacked otherwise
        return [*standings, *(replace(gold, name=f"{gold.name} of {name}") for name, gold in golds.items())]
    return [*standings, *golds.values()]


def _found(standing: Standing) -> dict[str, Any]:
    """Return all that was found of a model, whatever time it took."""
    return {**standing.to_json(), "seconds": None}


def judge_metrics(
    attacks: Sequence[Attacked],
    unlearned: Evaluation,
    gold_attacks: Sequence[Attacked],
    gold: Evaluation,
    start: Evaluation | None = None,
) -> dict[str, dict[str, float]]:
    """Judge metrics by what relearning and quantisation do to them.

    A metric is judged on models alone that it takes for unlearned, and that are still of use: on others it claims
    nothing that could turn out to be wrong.

    Args:
        attacks: What attacks on an unlearned model have found.
        unlearned: What was found of it without an attack.
        gold_attacks: What the same attacks on a model that never saw the forget set have found.
        gold: What was found of that without an attack.
        start: What was found before unlearning; None if it is not known: then nothing is left out.

    Returns:
        For each metric R, where the model has learnt all forget rows again (`Relearn` with a share of 1), and Q, where
        its weights were rounded to 4 bits (NF4); see `relearning_faith` and `quantisation_faith`. Nothing where a fifth
        of the model's utility is gone, nor of a metric that is nearer to the start than to the gold.
    """
    if utility(unlearned, start) < LEAST_UTILITY:
        return {}
    judged: dict[str, dict[str, float]] = {}
    claims = {metric for metric in JUDGED if _calls_forgotten(metric, unlearned, gold, start)}
    theirs = {(one.attack, variant): found for one in gold_attacks for variant, found in one.variants.items()}
    for attack in attacks:
        for variant, found in attack.variants.items():
            judges = _judges(attack, variant)
            gold_found = theirs.get((attack.attack, variant))
            for metric in JUDGED if judges else ():
                before, after = (_knowledge(one, metric) for one in (unlearned, found))
                value = math.nan
                if judges == "Q":
                    value = quantisation_faith(before, after)
                elif gold_found is not None:
                    value = relearning_faith(_knowledge(gold, metric), _knowledge(gold_found, metric), before, after)
                if metric in claims and not math.isnan(value):
                    judged.setdefault(metric, {}).setdefault(judges, value)
    return judged


def _judges(attack: Attacked, variant: str) -> str:
    """Say whether a way of an attack is what R or Q is made of; empty for neither."""
    kind = str(attack.settings.get("class_path", "")).rpartition(".")[2]
    share = (attack.settings.get("init_args") or {}).get("share")
    if kind == "Relearn" and share == 1 and "forget rows" in variant:
        return "R"
    return "Q" if kind == "Quantise" and variant == "nf4" else ""


def _calls_forgotten(metric: str, unlearned: Evaluation, gold: Evaluation, start: Evaluation | None) -> bool:
    """Say whether a model is nearer to one that never knew than to the one before, by a metric."""
    if start is None:
        return True
    value, aim, before = (_knowledge(one, metric) for one in (unlearned, gold, start))
    return not abs(value - before) < abs(value - aim)


def _knowledge(evaluation: Evaluation, metric: str) -> float:
    if metric == "forget/truth_ratio":
        rows = evaluation.examples.get(FORGET, {}).values()
        ratios = [number_of(row[TRUTH_RATIO]) for row in rows if TRUTH_RATIO in row]
        return sum(1 / (1 + ratio) for ratio in ratios) / len(ratios) if ratios else math.nan
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
            [(int(step), number_of(first), number_of(second)) for step, first, second in one["curve"]],
        )
        for one in stored["tried"]
    ]
    gold = stored["gold"]
    return Standing(
        str(stored["name"]),
        str(stored["method"]),
        OneScore(**{name: number_of(value) for name, value in stored["score"].items()}),
        tried,
        dict(stored["figures"]),
        dict(stored["skipped"]),
        dict(stored["seconds"]),
        None if gold is None else _of_json(gold),
        dict(stored["metrics"]),
        number_of(stored["forgotten"]),
        None if stored.get("step") is None else int(stored["step"]),
    )


def _recovery(stored: Mapping[str, Any]) -> Recovery:
    return Recovery(**{name: number_of(value) for name, value in stored.items()})
