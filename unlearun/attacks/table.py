"""The table of an attack: models down, attacks across, and beside them the one score."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median

from unlearun.records import Standing, Tried, number, text_table, with_golds

GOLD = "retain model"
UNKNOWN = "-"


def standings_table(standings: Sequence[Standing]) -> str:
    """Lay out how models stand against attacks.

    Args:
        standings: One a model; the retain models that they were compared with come last, each once.

    Returns:
        Lines without a final newline: Mem, Priv, Util, Agg and robustness, higher being better, and for each attack the
        share of what was forgotten that it brought back, lower being better.
    """
    rows = with_golds(standings)
    attacks = list(dict.fromkeys(one.attack for row in rows for one in row.tried))
    header = ["", "Mem", "Priv", "Util", "Agg", "robust", *attacks]
    table = text_table(
        header, [[row.name, *_scores(row), *(_share(row.of_attack(a)) for a in attacks)] for row in rows]
    )
    lines = [
        table,
        "",
        "Mem, Priv, Util, Agg, robust: 0 to 1, higher is better. Under an attack: the share of what was forgotten that",
        f"it brought back, lower is better, by its strongest way; {UNKNOWN} where too little was forgotten to say.",
    ]
    lines += [f"{row.name}: weakest against {one.attack}, {one.variant}" for row in rows if (one := row.strongest)]
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
                _share(theirs),
                f"{_short(beside)} {number(one.beside.unlearned)} to {number(one.beside.value)}",
                _number(one.beside.share),
            ]
        )
    return text_table(["", "by", "share back", GOLD, "and by", "share back"], rows)


def judgement_table(judged: Sequence[Mapping[str, Mapping[str, float]]]) -> str:
    """Lay out how far metrics can be trusted: the median of R and Q over models.

    Args:
        judged: What `judge_metrics` found of each model.
    """
    names = list(dict.fromkeys(name for one in judged for name in one))
    rows = []
    for name in names:
        values = {part: [one[name][part] for one in judged if part in one.get(name, {})] for part in ("R", "Q")}
        rows.append([name, *(_number(median(known) if known else math.nan) for known in values.values())])
    table = text_table(["", "R", "Q"], rows)
    return (
        f"{table}\n\nR: does the metric rise under relearning no faster than in the retain model? Q: does it stay put "
        "under\nquantisation? 1 is best; below, it had called gone what was only hidden. Medians over the models."
    )


def _scores(standing: Standing) -> list[str]:
    return [_number(value) for value in (*standing.score, standing.robustness)]


def _share(tried: Tried | None) -> str:
    return UNKNOWN if tried is None else _number(tried.main.share)


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
