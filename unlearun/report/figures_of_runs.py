"""Figures that hold several runs against one another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from unlearun.records import better
from unlearun.records.scores import Floats
from unlearun.report.changes import Value
from unlearun.report.figures import COLOURS, INK, make_figure
from unlearun.report.point_names import CROWDED, name_points
from unlearun.report.reported_run import ReportedRun
from unlearun.report.summary import other_rows
from unlearun.report.values import DIRECTIONS, MAIN, direction, value_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

X, Y = "model_utility", "forget_quality"


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the places of points that no other one beats: none is as good in both and better in one.

    Args:
        points: Pairs of which more is better.

    >>> pareto_front([(0.2, 0.9), (0.5, 0.5), (0.4, 0.4), (0.9, 0.1)])
    [0, 1, 3]
    """
    return [
        at for at, (x, y) in enumerate(points) if not any(a >= x and b >= y and (a > x or b > y) for a, b in points)
    ]


def best_runs(runs: list[ReportedRun]) -> list[ReportedRun]:
    """Return the runs that no other beats in what is forgotten and what is kept.

    Args:
        runs: The runs; those without both values are left out.

    Returns:
        None of them where fewer than two have both, or where the values of two are not of one thing: made of other
        parts, or measured on other rows.
    """
    known = _with_both(runs)
    last = [run.last for run in known]
    unlike = any(set(one.parts.get(name, ())) != set(last[0].parts.get(name, ())) for one in last for name in (X, Y))
    unlike |= any(other_rows(one, two) for one, two in combinations(last, 2))
    if len(known) < 2 or unlike:
        return []
    return [known[at] for at in pareto_front([(one.summary[X], one.summary[Y]) for one in last])]


def _with_both(runs: list[ReportedRun]) -> list[ReportedRun]:
    return [run for run in runs if all(math.isfinite(run.last.summary.get(name, math.nan)) for name in (X, Y))]


def pareto_figure(runs: list[ReportedRun]) -> Figure | None:
    """Draw what each run has forgotten and kept, and the front of those that no other beats.

    Of many runs those of the front alone are named: the names of all would lie on each other.

    Args:
        runs: The runs; those without both values are left out.

    Returns:
        None where fewer than two have both.
    """
    known = _with_both(runs)
    if len(known) < 2:
        return None
    points = [(run.last.summary[X], run.last.summary[Y]) for run in known]
    best = {run.name for run in best_runs(known)}
    front = sorted((at for at, run in enumerate(known) if run.name in best), key=lambda at: points[at])
    figure, axes = make_figure(6.2, 4.4)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))  # whole, or a small difference would look large
    axes.step(
        [points[at][0] for at in front],
        [points[at][1] for at in front],
        where="pre",
        color=COLOURS["holdout"],
        linestyle="--",
        linewidth=1,
        zorder=1,
    )
    for at, (run, (x, y)) in enumerate(zip(known, points, strict=True)):
        colour = COLOURS["retain"] if at in front else COLOURS["holdout"]
        across, up = (_bars([value_of(run.last, name)]) for name in (X, Y))
        axes.errorbar(x, y, up, across, "o", color=colour, markersize=5, linewidth=0.8, zorder=2)
    axes.set(xlabel=f"{X}: kept", ylabel=f"{Y}: forgotten")
    axes.set_title("Pareto front: the runs that no other beats in both" if front else "Kept, and forgotten")
    named = front if front and len(known) > CROWDED else range(len(known))
    name_points(axes, {known[at].name: points[at] for at in named})
    return figure


def bars_figures(runs: list[ReportedRun]) -> dict[str, Figure]:
    """Draw the main metrics of all runs as bars with their intervals.

    Args:
        runs: The runs.

    Returns:
        Figures by metric, of those that more than one run has.
    """
    names = [name for name in MAIN if sum(name in run.last.summary for run in runs) > 1]
    return {name: _bars_figure(name, runs) for name in names}


def _bars_figure(name: str, runs: list[ReportedRun]) -> Figure:
    figure, axes = make_figure(5.4, 1.0 + 0.3 * len(runs))
    known = [(place, value_of(run.last, name)) for place, run in enumerate(runs) if name in run.last.summary]
    known = [(place, value) for place, value in known if math.isfinite(value.value)]
    places, values = [place for place, _ in known], [value for _, value in known]
    ends = {"ecolor": INK, "elinewidth": 1}
    axes.barh(
        places, [value.value for value in values], 0.6, xerr=_bars(values), color=COLOURS["retain"], error_kw=ends
    )
    axes.set_yticks(range(len(runs)), [run.name for run in runs])
    axes.set(ylim=(len(runs) - 0.5, -0.5))
    axes.grid(visible=False, axis="y")
    way = better(name)
    # of the figure, for long names of runs make the axes narrow
    figure.suptitle(f"{name}: {direction(name)}", fontsize=10, color=INK)
    if way not in DIRECTIONS:
        axes.axvline(float(way), color=COLOURS["forget"], linestyle=":", linewidth=1)
    return figure


def _bars(values: list[Value]) -> Floats | None:
    ends = np.array([[max(v.value - v.low, 0.0), max(v.high - v.value, 0.0)] for v in values], dtype=float).T
    return None if not np.isfinite(ends).any() else np.nan_to_num(ends)
