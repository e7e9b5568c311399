"""Figures of one run over its steps: what was lost, what was kept, and the loss that did it."""

from __future__ import annotations

import math
from itertools import cycle
from typing import TYPE_CHECKING

from unlearun.records import Evaluation, role_of
from unlearun.report.figures import COLOURS, OTHERS, make_figure
from unlearun.report.reported_run import Curve

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLES = {"forget": COLOURS["forget"], "retain": COLOURS["retain"], "holdout": COLOURS["holdout"]}


def steps_figure(evaluations: list[Evaluation]) -> Figure | None:
    """Draw the probability of every set's answers over the steps; None where fewer than two evaluations have any.

    Args:
        evaluations: By step.
    """
    names = dict.fromkeys(name for one in evaluations for name in one.summary if name.endswith("/probability"))
    curves = {name: _over(evaluations, name) for name in names}
    curves = {name: (steps, values) for name, (steps, values) in curves.items() if len(steps) > 1}
    if not curves:
        return None
    figure, axes = make_figure(5.4, 3.6)
    others = iter(OTHERS * len(curves))
    for name, (steps, values) in curves.items():
        title = name.removesuffix("/probability")
        colour = STYLES.get(title) or next(others)
        dashed = "--" if role_of(title) == "utility" else "-"
        axes.plot(steps, values, dashed, color=colour, label=title, marker="o", markersize=3)
    axes.set(xlabel="step", ylabel="mean probability of a token", ylim=(-0.02, 1.02))
    axes.legend(frameon=False, fontsize=8, ncols=2)
    axes.set_title("How likely the answers are")
    return figure


# Labels of points that are nearer lie on each other.
LEGIBLE = 0.08


def trade_off_figure(evaluations: list[Evaluation]) -> Figure | None:
    """Draw the way of a run in the plane of what is forgotten and what is kept; None where there is no way to draw.

    Where ``forget_quality`` and ``model_utility`` were measured at two steps alone, the probabilities of the forget and
    retain answers, which every evaluation has, stand in.

    Args:
        evaluations: By step.
    """
    whole = _path(evaluations, "model_utility", "forget_quality")
    cheap = _path(evaluations, "retain/probability", "forget/probability")
    if len(whole) < 2 and len(cheap) < 2:
        return None
    figure, axes = make_figure(4.6, 3.8)
    if len(whole) > 2 or len(cheap) < 2:
        points = whole
        axes.set(xlabel="model_utility", ylabel="forget_quality")
    else:
        points = [(step, kept, 1 - known) for step, kept, known in cheap]
        axes.set(xlabel="retain/probability", ylabel="1 - forget/probability")
    steps, kept, forgotten = zip(*points, strict=True)
    axes.plot(kept, forgotten, color=COLOURS["holdout"], linewidth=1, zorder=1)
    axes.scatter(kept, forgotten, color=COLOURS["retain"], s=18, zorder=2)
    moved = math.hypot(kept[-1] - kept[0], forgotten[-1] - forgotten[0]) > LEGIBLE
    named = {0: f"step {steps[0]}", -1: f"step {steps[-1]}"} if moved else {-1: f"step {steps[0]} and {steps[-1]}"}
    for place, words in named.items():
        axes.annotate(words, (kept[place], forgotten[place]), (6, 6), textcoords="offset points", fontsize=8)
    axes.set(xlim=(-0.02, 1.08), ylim=(-0.02, 1.08))
    axes.set_title("Kept, and forgotten: up and right is better")
    return figure


def loss_figures(losses: dict[str, Curve]) -> dict[str, Figure]:
    """Draw each part of the loss on a scale of its own.

    Args:
        losses: Steps and values by name.

    Returns:
        Figures by name; the sum is left out where its parts are there.
    """
    curves = {name: curve for name, curve in losses.items() if len(curve[0]) > 1}
    parts = {name: curve for name, curve in curves.items() if name != "loss"} or curves
    others = iter(OTHERS * (len(parts) + 1))
    return {name: _loss_figure(name, curve, next(others)) for name, curve in parts.items()}


def _loss_figure(name: str, curve: Curve, colour: str) -> Figure:
    figure, axes = make_figure(4.8, 3.0)
    axes.plot(*curve, color=STYLES.get(name.removesuffix("_loss"), colour), linewidth=1.2)
    axes.set(xlabel="step")
    axes.set_title(name)
    return figure


def _over(evaluations: list[Evaluation], name: str) -> tuple[list[int], list[float]]:
    known = [(one.step, one.summary[name]) for one in evaluations if math.isfinite(one.summary.get(name, math.nan))]
    return [step for step, _ in known], [value for _, value in known]


def _path(evaluations: list[Evaluation], x: str, y: str) -> list[tuple[int, float, float]]:
    values = [(one.step, one.summary.get(x, math.nan), one.summary.get(y, math.nan)) for one in evaluations]
    return [point for point in values if all(map(math.isfinite, point))]


def attack_figure(curves: dict[str, Curve]) -> Figure | None:
    """Draw what a light attack brought back while the model unlearnt; None where there was none.

    Args:
        curves: By metric.
    """
    if not curves:
        return None
    figure, axes = make_figure(4.8, 3.4)
    for (name, (steps, values)), colour in zip(curves.items(), cycle(OTHERS), strict=False):
        axes.plot(steps, values, marker="o", markersize=3, color=colour, label=name.replace("_", " "))
    axes.set(xlabel="step", ylabel="after relearning", ylim=(-0.02, 1.02))
    axes.legend(frameon=False, fontsize=8)
    axes.set_title("What a light attack brings back")
    return figure
