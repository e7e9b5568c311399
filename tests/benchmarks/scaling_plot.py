"""Draw what scaling.py has measured: seconds above, memory below, a column a part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

LEAST = 1e-3  # MB and ms are what measuring cannot tell from nothing
OURS, OTHER, INK, GRID = "#1f6f8b", "#b8661a", "#30363a", "#e4e7e9"
# What each part is drawn against: its key, the axis, what the seconds are of.
AXES = {
    "rows": ("rows", "rows of a set", "preparing, seconds"),
    "answers": ("answer_tokens", "tokens of an answer", "seconds a step"),
    "models": ("parameters", "parameters of the model, millions", "seconds a step"),
    "processes": ("processes", "processes that share a step", "seconds a step"),
}


def draw(results: Mapping[str, Sequence[Mapping[str, Any]]], picture: Path) -> None:
    """Draw all parts that were measured into one picture."""
    figure = Figure(figsize=(3.2 * len(results) + 0.4, 5.4), layout="constrained")
    grid = figure.subplots(2, len(results), sharex="col", squeeze=False)
    for column, (part, found) in enumerate(results.items()):
        key, label, seconds = AXES[part]
        above, below = grid[0][column], grid[1][column]
        sizes = [each[key] / 1e6 if part == "models" else each[key] for each in found]
        line(above, sizes, [each["seconds"] for each in found], OURS, "o-", "first start")
        if part == "rows":
            line(above, sizes, [each["again_seconds"] for each in found], OTHER, "s--", "next start")
            above.legend(frameon=False, fontsize=8, labelcolor=INK, loc="upper left")
        line(below, sizes, [each["peak_gb"] for each in found], OURS, "o-", "")
        above.set_ylabel(seconds, color=INK)
        below.set_ylabel("peak memory, GB", color=INK)
        below.set_xlabel(label, color=INK)
        below.set_xticks(sizes, [f"{size:,.0f}" for size in sizes])
    figure.savefig(picture, dpi=160)


def line(axes: Axes, sizes: Sequence[float], values: Sequence[float], color: str, style: str, label: str) -> None:
    """Draw one number of a part on two logarithmic axes; what is too small to be measured is left out."""
    shown = [(size, value) for size, value in zip(sizes, values, strict=True) if value >= LEAST]
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.plot([size for size, _ in shown], [value for _, value in shown], style, color=color, label=label, markersize=5)
    for size, value in shown:
        place, side = ((5, -11), "left") if style.endswith("--") else ((2, 7), "right")
        text = f"{value:.2g}" if value < 10 else f"{value:,.0f}"
        axes.annotate(text, (size, value), place, textcoords="offset points", ha=side, fontsize=8, color=color)
    every = [float(y) for one in axes.lines for y in one.get_ydata()]
    if every:  # room for the numbers, and a decade at least, so that noise does not look like growth
        middle, reach = (max(every) * min(every)) ** 0.5, max(10**0.5, 2 * (max(every) / min(every)) ** 0.5)
        axes.set_ylim(middle / reach, middle * reach)
    axes.margins(x=0.12)
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0,)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_formatter(NullFormatter())
    axes.minorticks_off()
    axes.grid(True, which="major", color=GRID, linewidth=0.8)
    axes.tick_params(colors=INK, labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
