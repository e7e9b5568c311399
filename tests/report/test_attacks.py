"""What a report says of attacks: the shares, the warning, the yardstick, and who leads in what."""

from __future__ import annotations

import math

import pytest
from report_runs import evaluation, make_run

from unlearun.records import Attacked, Evaluation, Standing, stand, summarise
from unlearun.report.attacks import came_back, outdated, standing_rows, ways, weakest
from unlearun.report.card import card
from unlearun.report.figures_of_attacks import curves_figures, layers_figures, robustness_figure, shares_figure
from unlearun.report.findings import findings
from unlearun.report.markdown import comparison_markdown, run_markdown
from unlearun.report.page import comparison_page, run_page
from unlearun.report.reported_run import read_runs

HOSTILE = "on <b>rows</b>"


def found(es: float) -> Evaluation:
    rows = {str(i): {"extraction_strength": es, "probability": es / 2} for i in range(8)}
    one = Evaluation(1, examples={"forget": rows})
    summarise(one)
    return one


def standing(name: str, relearnt: float, quantised: float, **score: float) -> Standing:
    """1.0 at the start and 0.2 after: what came back follows by hand."""
    measured = ("extraction_strength", "probability")
    relearn = Attacked("relearn", "", {"class_path": "Relearn"}, True, measured, {HOSTILE: found(relearnt)})
    relearn.curves = {HOSTILE: [(0, 0.2, 0.1), (4, relearnt, relearnt / 2)]}
    quantise = Attacked("quantise", "", {"class_path": "Quantise"}, True, measured, {"nf4": found(quantised)})
    quantise.skipped = {"int4": "needs <torchao>"}
    looking = Attacked("look", "", {}, False, measured, figures={"lens": [0.0, 0.5, 0.1], "probe": [0.5, 0.7, 0.6]})
    one = stand(name, "NPO", [relearn, quantise, looking], found(0.2), found(1.0), None)
    one.score = one.score._replace(**score)
    return one


@pytest.fixture
def runs(tmp_path):
    gold = standing("retain model", 0.24, 0.2, aggregate=0.9)
    folders = []
    for number, (relearnt, aggregate) in enumerate([(0.6, 0.8), (0.3, 0.5)], start=1):
        folder = make_run(tmp_path / "npo" / str(number), evaluation(0, 0.9, 0.9), evaluation(8, 0.1, 0.9))
        one = standing(f"npo/{number}", relearnt, 0.28, aggregate=aggregate)
        one.gold = gold
        one.write(folder / "attacks" / "summary.json")
        folders.append(folder)
    return read_runs(folders)


def test_every_way_stands_beside_the_retain_model(runs):
    first, second = ways(runs[0].standing)
    assert (first.attack, first.variant, first.column) == ("relearn", HOSTILE, "extraction strength")
    assert (first.before.value, first.after.value) == pytest.approx((0.2, 0.6))
    assert first.share.value == pytest.approx(0.5)
    assert first.gold.value == pytest.approx(0.05)
    assert first.strongest
    assert not second.strongest
    assert weakest(runs[0].standing) == f"relearn, {HOSTILE}: 50% came back; of the retain model, 5%"


def test_what_comes_back_is_warned_of_where_it_is_much_and_more_than_chance(runs):
    said = came_back(runs[0])
    assert said == (
        f"Comes back: relearn ({HOSTILE}) brought back 50% of what was forgotten, where a model that never knew it "
        "gives 5%: it was hidden, not removed."
    )
    assert said in findings(runs[0])
    assert came_back(runs[1]) is None  # an eighth
    runs[0].standing.gold.tried[0] = (
        runs[0]
        .standing.gold.tried[0]
        .__class__(**{**vars(runs[0].standing.gold.tried[0]), "main": runs[0].standing.tried[0].main})
    )
    assert came_back(runs[0]) is None  # the retain model gives as much


def test_the_page_and_the_text_show_it_escaped(runs):
    page, text = run_page(runs[0]), run_markdown(runs[0])
    for part in (
        "Is it really gone?",
        "on &lt;b&gt;rows&lt;/b&gt;",
        "needs &lt;torchao&gt;",
        "secondary transcription",
    ):
        assert part in page
    assert HOSTILE not in page
    assert page.index("Is it really gone?") < page.index("All values")
    assert "## Is it really gone?" in text
    assert "| 0.500 (0.500 to 0.500) | 0.050" in text
    assert HOSTILE not in text


def test_the_model_card_says_what_came_back(runs):
    said = card(runs[0])
    assert "Robustness 0.500, 1 being best. Weakest against relearn, on &lt;b&gt;rows&lt;/b&gt;: 50% came back" in said
    assert "| quantise | nf4 | 0.100 (0.100 to 0.100) | 0.000 (0.000 to 0.000) |" in said
    assert "## Attacks" in said


def test_what_came_back_before_a_run_went_on_is_said_to_be_of_another_model(tmp_path, runs):
    one = runs[0].standing
    one.step = 8
    one.write(runs[0].folder / "attacks" / "summary.json")
    (run,) = read_runs([runs[0].folder])
    assert outdated(run) is None
    assert came_back(run)
    make_run(run.folder, evaluation(0, 0.9, 0.9), evaluation(16, 0.1, 0.9))
    (run,) = read_runs([run.folder])
    said = outdated(run)
    assert said.startswith("Attacked before it went on from step 8 to step 16")
    assert said in findings(run)
    assert came_back(run) is None
    assert "## Attacks" not in card(run)
    assert str(tmp_path) not in card(run)


def test_a_run_that_was_not_attacked_says_nothing_of_it(tmp_path):
    (run,) = read_runs([make_run(tmp_path / "npo" / "1", evaluation(0, 0.9, 0.9), evaluation(8, 0.1, 0.9))])
    assert "Is it really gone?" not in run_page(run)
    assert "Is it really gone?" not in run_markdown(run)
    assert "## Attacks" not in card(run)
    assert came_back(run) is None


def test_who_leads_in_what_shows_at_a_glance(runs):
    """The one that looks better gives more back."""
    attacks, rows = standing_rows([run.standing for run in runs])
    assert attacks == ["relearn", "quantise"]
    assert [(row.name, row.leads) for row in rows] == [
        ("npo/1", "highest Agg"),
        ("npo/2", "most robust"),
        ("retain model", ""),
    ]
    assert rows[0].robustness.value == pytest.approx(0.5)
    assert [share.value for share in rows[1].shares] == pytest.approx([0.125, 0.1])
    page, text = comparison_page(runs), comparison_markdown(runs)
    assert page.count("Is it really gone?") == 1
    assert "highest Agg" in page
    assert "To the right and low" in page
    assert "| retain model |" in text


def test_figures_are_there_where_there_is_something_to_draw(runs):
    one = runs[0].standing
    assert shares_figure(one) is not None
    assert list(curves_figures(one)) == ["relearn"]
    assert [name.partition(": ")[2] for name in layers_figures(one)] == ["lens", "probe"]
    axes = robustness_figure([run.standing for run in runs]).axes[0]
    points = [tuple(float(values[0]) for values in line.get_data()) for line in axes.lines]
    assert points == [pytest.approx((0.8, 0.5)), pytest.approx((0.5, 0.875)), pytest.approx((0.9, 0.95))]
    empty = stand("a", "NPO", [], found(0.2), None, None)
    assert shares_figure(empty) is None
    assert not curves_figures(empty)
    assert not layers_figures(empty)
    assert robustness_figure([empty, empty]) is None
    assert math.isnan(empty.robustness)


def test_a_broken_summary_costs_no_report(runs):
    (runs[0].folder / "attacks" / "summary.json").write_text('{"tried": [')
    (run,) = read_runs([runs[0].folder])
    assert run.standing is None
    assert "Is it really gone?" not in run_page(run)
