"""The pictures of a page: each figure as SVG, with a sentence that says how to read it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from unlearun.records import Standing
from unlearun.report.figures import likelihood_figure, roc_figure, truth_ratio_figure
from unlearun.report.figures_of_attacks import curves_figures, layers_figures, robustness_figure, shares_figure
from unlearun.report.figures_of_runs import bars_figures, best_runs, pareto_figure
from unlearun.report.figures_over_time import attack_figure, loss_figures, steps_figure, trade_off_figure
from unlearun.report.reported_run import ReportedRun
from unlearun.report.svg import svg

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure


class Picture(NamedTuple):
    """A picture of a page.

    Attributes:
        drawing: An ``<svg>`` element.
        words: How to read it.
    """

    drawing: Markup
    words: str


def pictures_of_run(run: ReportedRun) -> list[Picture]:
    """Draw what one run has done.

    Args:
        run: The run.
    """
    return list(_drawn(_of_run(run)))


def pictures_of_runs(runs: list[ReportedRun]) -> list[Picture]:
    """Draw several runs against one another.

    Args:
        runs: At least two.
    """
    found: list[tuple[str, Figure | None, str]] = [
        (
            "pareto",
            pareto_figure(runs),
            "Each run by what it has kept and what it has forgotten, with 95% intervals."
            + (
                " Blue are those that no other beats in both; a dashed line joins them where they are several, and of "
                "many runs they alone are named."
                if best_runs(runs)
                else " None is marked as best, for the values are not all of the same parts and rows."
            ),
        ),
        (
            "robustness",
            robustness_figure([run.standing for run in runs if run.standing]),
            "Each attacked model by how good it looks and how little comes back; the star is the retain model. To the "
            "right and low it only looks forgotten.",
        ),
    ]
    for at, (name, figure) in enumerate(bars_figures(runs).items()):
        found.append((f"bars-{at}", figure, f"{name} of every run, with 95% intervals where there are examples."))
    return list(_drawn(found))


def _of_run(run: ReportedRun) -> Iterator[tuple[str, Figure | None, str]]:
    if run.trained:
        yield (
            "trade-off",
            trade_off_figure(run.like_the_last),
            "Where the run went: up is forgotten, right is kept. A path that turns left has begun to cost what should "
            "stay.",
        )
        yield (
            "steps",
            steps_figure(run.like_the_last),
            "Forget should fall to where holdout is, which the model never saw, and no lower; the others should stay.",
        )
    yield (
        "light-attack",
        attack_figure(run.attacks),
        "A light attack as the run went on: what a few steps of relearning bring back of rows that were not relearnt, "
        "and which share of what was forgotten that is.",
    )
    if run.standing is not None:
        yield from _of_attacks(run.standing)
    for at, (name, figure) in enumerate(loss_figures(run.losses).items()):
        yield f"loss-{at}", figure, f"{name} at every step."
    yield (
        "roc",
        roc_figure(run.last),
        "Can forgotten rows be told from rows that the model never saw? On the dotted diagonal they cannot; a curve "
        "below it is over-unlearning.",
    )
    yield (
        "likelihood",
        likelihood_figure(run.last),
        "How likely each answer is: forgotten rows should lie on those that the model never saw.",
    )
    yield (
        "truth-ratio",
        truth_ratio_figure(run.last),
        "At 0 an example's right and wrong answers are equally likely; to the left the right one is preferred.",
    )


def _of_attacks(standing: Standing) -> Iterator[tuple[str, Figure | None, str]]:
    yield (
        "shares",
        shares_figure(standing),
        "What each way of each attack brought back, with 95% intervals; the bar of the retain model, which never knew "
        "it, is what any model gives.",
    )
    for at, (attack, figure) in enumerate(curves_figures(standing).items()):
        yield (
            f"relearning-{at}",
            figure,
            f"{attack}: what comes back as the model is trained a little. Dotted is the retain model that learns the "
            "same; dashed is what was known before unlearning.",
        )
    words = {
        "lens": "The answers as read at each layer through the final norm and the head: what rises and falls again was "
        "known, and is held back.",
        "probe": "How often a line through a layer's states tells a true answer from a wrong one, in rows that it was "
        "not drawn by; 0.5 is chance.",
    }
    for at, (name, figure) in enumerate(layers_figures(standing).items()):
        yield f"layers-{at}", figure, words[name.rpartition(": ")[2]]


def _drawn(found: Iterator[tuple[str, Figure | None, str]] | list[tuple[str, Figure | None, str]]) -> Iterator[Picture]:
    from markupsafe import Markup

    for name, figure, words in found:
        if figure is not None:
            yield Picture(Markup(svg(figure, name, words)), words)
