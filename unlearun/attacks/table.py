"""The table of an attack: models down, attacks across, and beside them the one score."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

from unlearun.records import Standing, Tried, number, other_attacks, text_table, with_golds

GOLD = "retain model"
UNKNOWN = "-"
JUDGES = {
    "R": "R: does it rise no faster than in the retain model when all forget rows are learnt again?",
    "Q": "Q: does it stay put when weights are rounded to 4 bits?",
}


def standings_table(standings: Sequence[Standing]) -> str:
    """Lay out how models stand against attacks.

    Args:
        standings: One a model; the retain models that they were compared with come last, each once.

    Returns:
        Lines without a final newline: Mem, Priv, Util, Agg and robustness, higher being better, and for each attack the
        share of what was forgotten that it brought back, lower being better.
    """
    rows = with_golds(standings)
    attacks = list(dict.fromkeys(attack for row in rows for attack in row.carried_out))
    header = ["", "Mem", "Priv", "Util", "Agg", "robust", *attacks]
    table = text_table(
        header, [[row.name, *_scores(row), *(_share(row, attack) for attack in attacks)] for row in rows]
    )
    lines = [
        table,
        "",
        "Mem, Priv, Util, Agg, robust: 0 to 1, higher is better. Under an attack: the share of what was forgotten that",
        f"it brought back, lower is better, by its strongest way; {UNKNOWN} where that is not known, as too little was",
        "forgotten, or nothing is known of the model before; empty where it was not carried out, or failed.",
    ]
    lines += [f"{row.name}: {_weakest(one)}" for row in rows if (one := row.strongest)]
    if said := other_attacks(rows):
        lines += ["", said]
    return "\n".join(lines)


def details_table(standing: Standing) -> str:
    """Lay out every way of every attack on one model.

    Args:
        standing: How it stands.
    """
    gold = {} if standing.gold is None else {(one.attack, one.variant): one for one in standing.gold.tried}
    rows = []
    for one in standing.tried:
        theirs = gold.get((one.attack, one.variant))
        main, beside = one.measured
        rows.append(
            [
                f"{one.attack}, {one.variant}",
                f"{_short(main)} {number(one.main.unlearned)} to {number(one.main.value)}",
                _interval(one),
                UNKNOWN if theirs is None else _number(theirs.main.share),
                f"{_short(beside)} {number(one.beside.unlearned)} to {number(one.beside.value)}",
                _number(one.beside.share),
            ]
        )
    return text_table(["", "by", "share back", GOLD, "and by", "share back"], rows)


def judgement_table(judged: Sequence[Mapping[str, Mapping[str, float]]]) -> str:
    """Lay out how far metrics can be trusted: the mean of R and Q over models.

    Args:
        judged: What `judge_metrics` found of each model.
    """
    names = list(dict.fromkeys(name for one in judged for name in one))
    values = {
        part: {name: [one[name][part] for one in judged if part in one.get(name, {})] for name in names}
        for part in JUDGES
    }
    parts = [part for part in JUDGES if any(values[part].values())]
    rows = [[name, *(_mean(values[part][name]) for part in parts)] for name in names]
    said = " ".join(JUDGES[part] for part in parts)
    return (
        f"How far metrics can be trusted: means over models that they take for unlearned\n\n"
        f"{text_table(['', *parts], rows)}\n\n{said}\n1 is best; below, it had called gone what was only hidden."
    )


def _mean(values: Sequence[float]) -> str:
    return _number(fmean(values) if values else math.nan)


def _scores(standing: Standing) -> list[str]:
    return [_number(value) for value in (*standing.score, standing.robustness)]


def _share(standing: Standing, attack: str) -> str:
    if not standing.has_tried(attack):
        return ""
    tried = standing.of_attack(attack)
    return UNKNOWN if tried is None else _number(tried.main.share)


def _weakest(one: Tried) -> str:
    if one.main.share == 0:
        return "no attack brought anything back"
    return f"weakest against {one.attack}, {one.variant}"


def _interval(tried: Tried) -> str:
    if math.isnan(tried.main.share):
        return UNKNOWN
    return f"{tried.main.share:.2f} ({tried.main.low:.2f} to {tried.main.high:.2f})"


def _number(value: float) -> str:
    return UNKNOWN if math.isnan(value) else f"{value:.2f}"


def _short(column: str) -> str:
    return {"extraction_strength": "ES", "verbatim_memorization": "exact hits", "rougeL_recall": "ROUGE-L"}.get(
        column, column
    )
