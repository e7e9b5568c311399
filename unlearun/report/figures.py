"""Figures of one evaluation: can members be told from strangers, and how far are their scores apart?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from unlearun.records import ATTACKS, Evaluation, SetTable, auroc, find
from unlearun.records.scores import Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"forget": "#b2182b", "holdout": "#6d6d6d", "retain": "#2166ac"}
INK = "#010203"  # of text and axes in a page, whose own it becomes
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
        area = float(auroc(members, others)[0])
        axes.plot(*roc_curve(members, others), label=f"{LABELS[attack]}  AUC {area:.2f}")
    axes.plot([0, 1], [0, 1], color=COLOURS["holdout"], linestyle=":", linewidth=1)
    axes.set(xlabel="holdout taken for forget", ylabel="forget recognised", xlim=(0, 1), ylim=(0, 1.01), aspect="equal")
    axes.set_title(f"Membership inference, step {evaluation.step}")
    # below, for the curves of what was unlearned too far run where there would be room
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, frameon=False, fontsize=8)
    return figure


def likelihood_figure(evaluation: Evaluation) -> Figure | None:
    """Draw how likely forget and holdout answers are, row by row; None where there are none.

    Args:
        evaluation: With records.
    """
    tables = {name: SetTable(name, rows) for name, rows in evaluation.examples.items()}
    values = _column(tables, ("forget", "holdout"), "mia")
    return _histogram(values, "mean log-probability of an answer, nats a token", "Likelihood", evaluation.step)


def truth_ratio_figure(evaluation: Evaluation) -> Figure | None:
    """Draw the truth ratios of all sets; None where there are none.

    Args:
        evaluation: With records.
    """
    tables = {name: SetTable(name, rows) for name, rows in evaluation.examples.items()}
    return _histogram(_truth_ratios(tables), "log10 of the truth ratio", "Truth ratios", evaluation.step)


def _histogram(values: dict[str, Floats], words: str, title: str, step: int) -> Figure | None:
    if not values:
        return None
    figure, axes = make_figure(4.8, 3.4)
    every = np.concatenate(list(values.values()))
    edges = np.linspace(every.min(), every.max() + 1e-9, 24)
    others = iter(OTHERS * len(values))
    for name, found in values.items():
        colour = COLOURS.get(name) or next(others)
        axes.hist(found, edges.tolist(), density=True, histtype="step", linewidth=1.6, label=name, color=colour)
    axes.set(xlabel=words, ylabel="density")
    axes.set_title(f"{title} of examples, step {step}")
    axes.legend(frameon=False, fontsize=8)
    return figure


def make_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """Make an empty figure.

    Args:
        width: In inches.
        height: In inches.

    Returns:
        The figure, and its axes.
    """
    # Not by pyplot, which keeps every figure and may ask for a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set_prop_cycle(color=OTHERS)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    return figure, axes


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
