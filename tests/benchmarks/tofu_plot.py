"""Draw what tofu.py has measured: forget quality over model utility, each model a point with its intervals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from unlearun.report.point_names import name_points

OURS, GOLD, START, INK = "#1f6f8b", "#b8671b", "#8a9195", "#30363a"


def draw(rows: dict[str, dict[str, Any]], picture: Path, gold: str, target: str, others: set[str]) -> None:
    """Draw and write.

    Args:
        rows: For each model its values, each with its interval.
        picture: Ends in .png or .svg.
        gold: The model that never saw the forget set.
        target: The model that all begin as, but for the others.
        others: Those that began from another target, drawn hollow.
    """
    figure = Figure(figsize=(8, 6.5), layout="constrained")
    axes = figure.subplots()
    drawn = {name: row for name, row in rows.items() if {"model_utility", "forget_quality"} <= row.keys()}
    for name, row in drawn.items():
        (x, *xs), (y, *ys) = row["model_utility"], row["forget_quality"]
        color = {gold: GOLD, target: START}.get(name, OURS)
        spans = {
            side: [[value - low], [high - value]]
            for side, value, (low, high) in (("xerr", x, xs or (x, x)), ("yerr", y, ys or (y, y)))
        }
        axes.errorbar(
            *(x, y),
            **spans,
            fmt="*" if name == gold else "o",
            color=color,
            mfc="white" if name in others else color,
            ms=14 if name == gold else 6,
            lw=0.7,
        )
    axes.set_xlabel("model utility: what is kept", color=INK)
    axes.set_ylabel("forget quality: what is gone", color=INK)
    axes.grid(color="#e6e6e6", lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, length=0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    name_points(axes, {name: (row["model_utility"][0], row["forget_quality"][0]) for name, row in drawn.items()}, INK)
    for text in axes.texts:  # intervals run through some
        text.set_path_effects([withStroke(linewidth=2, foreground="white")])
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=150)
