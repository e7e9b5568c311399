"""What the figures show: their curves are read back and held against the numbers that they are of."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from report_runs import bad_run, evaluation, good_run, make_run

from unlearun.records import Evaluation, auroc
from unlearun.report.figures import likelihood_figure, make_figure, roc_curve, roc_figure, truth_ratio_figure
from unlearun.report.figures_of_runs import bars_figures, best_runs, pareto_figure, pareto_front
from unlearun.report.figures_over_time import loss_figures, steps_figure, trade_off_figure
from unlearun.report.reported_run import read_runs
from unlearun.report.svg import svg

SCORES = st.lists(st.sampled_from([-2.0, -1.0, 0.0, 0.5, 3.0]), min_size=1, max_size=12)


def curves(figure: Figure) -> dict[str, tuple[list[float], list[float]]]:
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in figure.axes[0].get_lines()}


@given(SCORES, SCORES)
def test_the_area_under_the_curve_is_the_auroc(members, others):
    alarms, hits = roc_curve(np.array(members), np.array(others))
    assert np.trapezoid(hits, alarms) == pytest.approx(auroc(np.array(members), np.array(others)))
    assert (alarms[0], hits[0], alarms[-1], hits[-1]) == (0, 0, 1, 1)


def test_the_roc_figure_has_a_curve_an_attack():
    found = evaluation(5, 0.4, 0.9)
    figure = roc_figure(found)
    assert figure is not None
    (label,) = [name for name in curves(figure) if name.startswith("loss")]
    assert label == f"loss  AUC {found.summary['mia']:.2f}"
    assert roc_figure(Evaluation(0)) is None


def test_histograms_have_a_shape_a_set():
    found = evaluation(5, 0.4, 0.9)
    for make, sets in (
        (likelihood_figure, ["forget", "holdout"]),
        (truth_ratio_figure, ["forget", "retain", "holdout"]),
    ):
        figure = make(found)
        assert figure is not None
        assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == sets
        assert make(Evaluation(0)) is None


def test_probabilities_over_steps_are_those_of_the_evaluations(tmp_path):
    (run,) = read_runs([good_run(tmp_path / "npo" / "1")])
    figure = steps_figure(run.evaluations)
    assert figure is not None
    for name, (steps, values) in curves(figure).items():
        assert steps == [0, 10, 20]
        assert values == [one.summary[f"{name}/probability"] for one in run.evaluations]
    assert steps_figure(run.evaluations[:1]) is None


def test_the_way_is_of_the_aggregates_where_there_are_three_of_them(tmp_path):
    (run,) = read_runs([good_run(tmp_path / "npo" / "1")])
    figure = trade_off_figure(run.evaluations)
    assert figure is not None
    ((kept, forgotten),) = curves(figure).values()
    assert kept == [one.summary["model_utility"] for one in run.evaluations]
    assert forgotten == [one.summary["forget_quality"] for one in run.evaluations]
    del run.evaluations[1].summary["model_utility"]
    figure = trade_off_figure(run.evaluations)
    assert figure is not None
    ((kept, forgotten),) = curves(figure).values()
    assert kept == [one.summary["retain/probability"] for one in run.evaluations]
    assert forgotten == [1 - one.summary["forget/probability"] for one in run.evaluations]
    assert figure.axes[0].get_ylabel() == "1 - forget/probability"
    assert trade_off_figure([]) is None


def test_losses_have_a_figure_a_part_and_the_sum_none():
    losses = {"forget_loss": ([0, 1], [2.0, 1.0]), "loss": ([0, 1], [3.0, 2.0]), "once": ([0], [1.0])}
    assert list(loss_figures(losses)) == ["forget_loss"]
    assert list(loss_figures({"loss": losses["loss"]})) == ["loss"]
    assert loss_figures({}) == {}


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=8))
def test_no_point_of_the_front_is_beaten_and_every_other_is(points):
    front = pareto_front(points)

    def beats(a, b):
        return a[0] >= b[0] and a[1] >= b[1] and a != b

    for at, point in enumerate(points):
        assert (at in front) == (not any(beats(other, point) for other in points))


def test_the_pareto_figure_and_the_bars_are_of_all_runs(tmp_path):
    runs = read_runs([good_run(tmp_path / "npo" / "1"), bad_run(tmp_path / "npo" / "2")])
    figure = pareto_figure(runs)
    assert figure is not None
    assert {text.get_text() for text in figure.axes[0].texts} == {"npo/1", "npo/2"}
    bars = bars_figures(runs)
    widths = [bar.get_width() for bar in bars["forget_quality"].axes[0].patches]
    assert widths == [run.last.summary["forget_quality"] for run in runs]
    assert pareto_figure(runs[:1]) is None


def test_of_many_runs_those_of_the_front_are_named(tmp_path):
    """The names of all would lie on each other."""
    ends = [evaluation(20, 0.5 - 0.01 * at, 0.6) for at in range(22)]
    folders = [
        make_run(tmp_path / "npo" / str(at), evaluation(0, 0.95, 0.95), end, losses=False)
        for at, end in enumerate(ends)
    ]
    runs = read_runs(folders)
    figure = pareto_figure(runs)
    assert figure is not None
    named = {text.get_text() for text in figure.axes[0].texts}
    assert named == {run.name for run in best_runs(runs)}
    assert 0 < len(named) < 22


def test_text_in_a_figure_is_text_and_escaped():
    def drawn() -> str:
        figure, axes = make_figure(3, 2)
        axes.set_title("<script>&")
        axes.plot([0, 1], label="a<b")
        axes.legend()
        return svg(figure, "name", 'words with "quotes"')

    assert "<script>" not in drawn()
    assert "&lt;script&gt;&amp;" in drawn()
    assert 'aria-label="words with &quot;quotes&quot;"' in drawn()
    assert drawn() == drawn()  # the same picture each time


def test_a_name_with_dollars_is_no_formula():
    """Matplotlib would take what stands between two for mathematics, and what is none costs the report."""
    figure, axes = make_figure(3, 2)
    axes.set_yticks([0, 1], ["a$b_$", "c"])
    axes.set_title("$\\nothing$")
    axes.set_xscale("log")
    axes.plot([1, 1000], [0, 1])
    drawn = svg(figure, "name", "words")
    assert "a$b_$" in drawn
    assert "$\\nothing$" in drawn
    assert "mathdefault" not in re.sub("<!--.*?-->", "", drawn)  # what a scale writes is mathematics all the same
