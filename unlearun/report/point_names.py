"""Names beside the points of a picture, where they lie on no other name or point, nor, if there is room, interval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from adjustText import adjust_text

from unlearun.report.figures import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Of placing; by number, not by time, so that the same points are named alike everywhere.
ROUNDS = 500
CROWDED = 20  # the intervals of more points leave no place between them that is free of names


def name_points(axes: Axes, points: Mapping[str, tuple[float, float]], ink: str = INK) -> None:
    """Write the name of each point beside it, and join the two by a line where they had to be moved apart.

    Args:
        axes: With all that is drawn, and its limits.
        points: Where each is, by name; those at the same place share a label.
        ink: The colour of the names.
    """
    names: dict[tuple[float, float], list[str]] = {}
    for name, place in points.items():
        names.setdefault(place, []).append(name)
    figure = axes.get_figure(root=True)
    if figure is not None:
        figure.draw_without_rendering()  # for the layout to be the final one
    intervals = [bars.get_datalim(axes.transData) for bars in axes.collections] if len(names) <= CROWDED else []
    adjust_text(
        [axes.text(x, y, ", ".join(same), fontsize=8, color=ink, parse_math=False) for (x, y), same in names.items()],
        objects=intervals or None,
        ax=axes,
        expand=(1.15, 1.8),
        force_text=(0.3, 0.8),
        iter_lim=ROUNDS,
        min_arrow_len=4,
        arrowprops={"arrowstyle": "-", "linewidth": 0.5, "color": ink, "shrinkA": 1, "shrinkB": 3},
    )
