"""Figures of one evaluation: can members be told from strangers, and how far are their scores apart?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from unlearun.records import ATTACKS, Evaluation, SetTable, find
from unlearun.records.scores import Floats

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {"forget": "#b2182b", "holdout": "#6d6d6d", "retain": "#2166ac"}
OTHERS = ("#1b7837", "#e08214", "#762a83", "#35978f", "#a6611a", "#c51b7d")
LABELS = {
    "mia": "loss",
    "mia_zlib": "zlib",
    "mia_min_k": "min-k",
    "mia_min_k_plus_plus": "min-k++",
    "mia_grad_norm": "gradient norm",
}


def roc_curve(members: Floats, others: Floats) -> tuple[Floats, Floats]:
    """Return the ROC curve of telling members by a higher score.

    Args:
        members: ``(M,)`` scores.
        others: ``(N,)`` scores.

    Returns:
        False and true positive rates, from 0 to 1, one a distinct threshold.

    >>> roc_curve(np.array([2.0]), np.array([1.0]))[0].tolist()
    [0.0, 0.0, 1.0]
    """
    thresholds = np.unique(np.concatenate([members, others]))[::-1]
    hits = (members[None, :] >= thresholds[:, None]).mean(1)
    alarms = (others[None, :] >= thresholds[:, None]).mean(1)
    return np.concatenate([[0.0], alarms]), np.concatenate([[0.0], hits])


def roc_figure(evaluation: Evaluation) -> Figure | None:
    """Draw the ROC curve of every membership attack; None where nothing was attacked.

    Args:
        evaluation: With the scores of a forget and a holdout set.
    """
    scores = _attacked(evaluation)
    if not scores:
        return None
    figure, axes = make_figure(4.6, 4.4)
    for attack, (members, others) in scores.items():
        area = evaluation.summary.get(attack, float("nan"))
        axes.plot(*roc_curve(members, others), label=f"{LABELS[attack]}  AUC {area:.2f}")
    axes.plot([0, 1], [0, 1], color=COLOURS["holdout"], linestyle=":", linewidth=1)
    axes.set(xlabel="holdout taken for forget", ylabel="forget recognised", xlim=(0, 1), ylim=(0, 1.01), aspect="equal")
    axes.set_title(f"Membership inference, step {evaluation.step}")
    axes.legend(loc="lower right", frameon=False, fontsize=8)
    return figure


def histogram_figure(evaluation: Evaluation) -> Figure | None:
    """Draw the loss of forget and holdout rows and the truth ratios of all sets; None without either.

    Args:
        evaluation: With records.
    """
    tables = {name: SetTable(name, rows) for name, rows in evaluation.examples.items()}
    panels = [
        ("mean log-probability of an answer, nats a token", _column(tables, ("forget", "holdout"), "mia")),
        ("log10 of the truth ratio", _truth_ratios(tables)),
    ]
    panels = [(title, values) for title, values in panels if values]
    if not panels:
        return None
    figure, first = make_figure(4.8 * len(panels), 3.4, len(panels))
    for axes, (title, values) in zip(np.atleast_1d(first), panels, strict=True):
        every = np.concatenate(list(values.values()))
        edges = np.linspace(every.min(), every.max() + 1e-9, 24)
        for name, found in values.items():
            axes.hist(found, edges, density=True, histtype="step", linewidth=1.6, label=name, color=COLOURS.get(name))
        axes.set(xlabel=title, ylabel="density")
        axes.legend(frameon=False, fontsize=8)
    figure.suptitle(f"Scores of examples, step {evaluation.step}")
    return figure


def make_figure(width: float, height: float, panels: int = 1) -> tuple[Figure, Any]:
    """Make an empty figure.

    Args:
        width: In inches.
        height: In inches.
        panels: How many axes it has, side by side.

    Returns:
        The figure, and its axes; with several panels an array of these.
    """
    # Not by pyplot, which keeps every figure and may ask for a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    made = figure.subplots(1, panels)
    for axes in np.atleast_1d(made):
        axes.set_prop_cycle(color=OTHERS)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25, linewidth=0.6)
    return figure, made


def _attacked(evaluation: Evaluation) -> dict[str, tuple[Floats, Floats]]:
    tables = {name: SetTable(name, rows) for name, rows in evaluation.examples.items()}
    found = {}
    for attack in ATTACKS:
        values = _column(tables, ("forget", "holdout"), attack)
        if len(values) == 2:
            members, others = values.values()
            found[attack] = (members, others)
    return found


def _column(tables: dict[str, SetTable], roles: tuple[str, ...], column: str) -> dict[str, Floats]:
    chosen = {role: find(tables, role) for role in roles}
    values = {role: table.columns([column])[:, 0] for role, table in chosen.items() if table is not None}
    return {role: found[np.isfinite(found)] for role, found in values.items() if np.isfinite(found).any()}


def _truth_ratios(tables: dict[str, SetTable]) -> dict[str, Floats]:
    values = {name: table.columns(["truth_ratio"])[:, 0] for name, table in tables.items()}
    known = {name: found[np.isfinite(found)] for name, found in values.items() if np.isfinite(found).any()}
    return {name: np.log10(np.maximum(found, 1e-12)) for name, found in known.items()}
