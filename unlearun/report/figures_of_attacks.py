"""Figures of attacks: what came back, how fast, what the layers know, and robustness beside the one score."""

from __future__ import annotations

import math
from itertools import cycle
from typing import TYPE_CHECKING

from unlearun.records import Standing, Tried, layer_values, with_golds
from unlearun.report.figures import COLOURS, INK, OTHERS, make_figure
from unlearun.report.point_names import name_points

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_CHARACTERS = 44


def shares_figure(standing: Standing) -> Figure | None:
    """Draw what every way of every attack brought back, and the same of the retain model; None where nothing is known.

    Args:
        standing: How a model stands.
    """
    known = [one for one in standing.tried if not math.isnan(one.main.share)]
    if not known:
        return None
    gold = {} if standing.gold is None else {(one.attack, one.variant): one.main for one in standing.gold.tried}
    figure, axes = make_figure(6.6, 1.0 + 0.26 * len(known))
    shares = [one.main.share for one in known]
    ends = [
        [max(one.main.share - one.main.low, 0.0) for one in known],
        [max(one.main.high - one.main.share, 0.0) for one in known],
    ]
    axes.barh(
        range(len(known)), shares, 0.6, xerr=ends, color=COLOURS["forget"], error_kw={"ecolor": INK, "elinewidth": 1}
    )
    theirs = [(at, gold[one.attack, one.variant]) for at, one in enumerate(known) if (one.attack, one.variant) in gold]
    axes.plot(
        [found.share for _, found in theirs],
        [at for at, _ in theirs],
        "|",
        color=COLOURS["retain"],
        markersize=11,
        markeredgewidth=2.4,
        label="retain model",
    )
    axes.set_yticks(range(len(known)), [_label(one) for one in known], fontsize=8)
    axes.set(xlim=(0, 1), ylim=(len(known) - 0.4, -0.6), xlabel="share of what was forgotten that came back")
    axes.grid(visible=False, axis="y")
    if theirs:
        axes.legend(frameon=False, fontsize=8, loc="lower right")
    axes.set_title("What attacks bring back")
    return figure


def _label(one: Tried) -> str:
    text = f"{one.attack}: {one.variant}"
    return text if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 3]}..."


def curves_figures(standing: Standing) -> dict[str, Figure]:
    """Draw what comes back over the steps of relearning, beside the retain model that learns the same.

    Args:
        standing: How a model stands.

    Returns:
        A figure an attack that takes steps.
    """
    gold = {} if standing.gold is None else {(one.attack, one.variant): one for one in standing.gold.tried}
    found = {}
    for attack in dict.fromkeys(one.attack for one in standing.tried if one.curve):
        figure, axes = make_figure(5.4, 3.6)
        tried = [one for one in standing.tried if one.attack == attack and one.curve]
        for one, colour in zip(tried, cycle(OTHERS), strict=False):
            steps, values, _ = zip(*one.curve, strict=True)
            axes.plot(steps, values, marker="o", markersize=3, color=colour, label=one.variant)
            theirs = gold.get((attack, one.variant))
            if theirs is not None and theirs.curve:
                steps, values, _ = zip(*theirs.curve, strict=True)
                axes.plot(steps, values, linestyle=":", color=colour)
        starts = [one.main.start for one in tried if not math.isnan(one.main.start)]
        if starts:
            axes.axhline(sum(starts) / len(starts), color=COLOURS["holdout"], linestyle="--", linewidth=1)
        axes.set(xlabel="step", ylabel=tried[0].measured[0].replace("_", " "), ylim=(-0.02, 1.02))
        axes.legend(frameon=False, fontsize=8)
        axes.set_title(f"{attack}: rows that were not trained on")
        found[attack] = figure
    return found


def layers_figures(standing: Standing) -> dict[str, Figure]:
    """Draw what an attack that looks inside has found at each layer, beside the retain model.

    Args:
        standing: How a model stands.

    Returns:
        A figure for each quantity of each attack, such as ``look_inside: lens``.
    """
    from matplotlib.ticker import MaxNLocator

    gold = {} if standing.gold is None else standing.gold.figures
    words = {"lens": "probability of the answers", "probe": "accuracy of telling true from wrong"}
    figures = {}
    for attack, quantities in standing.figures.items():
        for name in words:
            values = layer_values(quantities, name)
            if not values:
                continue
            figure, axes = make_figure(4.8, 3.2)
            axes.plot(
                range(len(values)), values, marker="o", markersize=3, color=COLOURS["forget"], label=standing.name
            )
            if theirs := layer_values(gold.get(attack, {}), name):
                axes.plot(range(len(theirs)), theirs, linestyle=":", color=COLOURS["retain"], label="retain model")
            axes.set(xlabel="layer", ylabel=words[name], ylim=(-0.02, 1.02))
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.legend(frameon=False, fontsize=8)
            axes.set_title({"lens": "Logit lens", "probe": "Linear probe"}[name])
            figures[f"{attack}: {name}"] = figure
    return figures


def robustness_figure(standings: list[Standing]) -> Figure | None:
    """Draw every model by its one score and its robustness; None where fewer than two have both.

    Args:
        standings: One a model.
    """
    known = [
        one for one in with_golds(standings) if not math.isnan(one.score.aggregate) and not math.isnan(one.robustness)
    ]
    if len(known) < 2:
        return None
    figure, axes = make_figure(6.2, 4.4)
    for one in known:
        is_gold = all(one is not other for other in standings)
        x, y = one.score.aggregate, one.robustness
        axes.plot(
            x,
            y,
            "*" if is_gold else "o",
            color=COLOURS["retain" if is_gold else "forget"],
            markersize=10 if is_gold else 6,
        )
    axes.set(
        xlabel="Agg: how good it looks",
        ylabel="robustness: how little comes back",
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.04),
    )
    axes.set_title("To the right and low: it only looks forgotten")
    name_points(axes, {one.name: (one.score.aggregate, one.robustness) for one in known})
    return figure
