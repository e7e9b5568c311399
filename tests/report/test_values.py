"""Values of runs, as rows of tables."""

from __future__ import annotations

import csv
import io
import math
import random

import pytest
from report_runs import evaluation, good_run, make_run

from unlearun.records import summarise
from unlearun.report.changes import Changes, Value
from unlearun.report.reported_run import read_runs
from unlearun.report.values import COLUMNS, compared_names, lines, main_lines, to_csv


@pytest.fixture
def run(tmp_path):
    return read_runs([good_run(tmp_path / "npo" / "1")])[0]


def test_a_line_has_both_values_their_direction_and_what_changed(run):
    found = {line.name: line for line in lines(run)}
    assert set(found) == set(run.last.summary)
    forget = found["forget/probability"]
    assert forget.before is not None
    assert (forget.before.value, forget.after.value) == (
        run.first.summary["forget/probability"],
        run.last.summary["forget/probability"],
    )
    assert (forget.after.low, forget.after.high) == run.last.intervals["forget/probability"]
    assert (forget.direction, forget.change) == ("lower is better", "better")
    assert (found["retain/probability"].direction, found["retain/probability"].change) == ("higher is better", "worse")
    assert (found["mia"].direction, found["mia"].change) == ("best near 0.5", "better")
    assert found["holdout/probability"].change == ""
    assert found["holdout/probability"].direction == "neither way is better"


def test_aggregates_come_first_then_the_forget_set(run):
    names = [line.name for line in lines(run)]
    assert "/" not in names[0]
    firsts = [
        next(i for i, name in enumerate(names) if name.startswith(f"{s}/")) for s in ("forget", "retain", "holdout")
    ]
    assert firsts == sorted(firsts)


def test_an_aggregate_of_other_parts_is_not_compared(tmp_path):
    start, end = evaluation(0, 0.9, 0.9), evaluation(5, 0.2, 0.8)
    start.parts["model_utility"] = ["retain/probability"]
    (run,) = read_runs([make_run(tmp_path / "npo" / "1", start, end, losses=False)])
    found = {line.name: line for line in lines(run)}
    assert found["model_utility"].before is None
    assert found["model_utility"].change == ""
    assert found["forget_quality"].before is not None


def test_rouge_stands_for_its_details(run):
    names = [line.name for line in lines(run)]
    assert "forget/rougeL_recall" in names
    shown = [line.name for line in main_lines(lines(run))]
    assert "forget/rouge" in shown
    assert "forget/rougeL_recall" not in shown


def test_the_csv_has_every_value_with_all_digits(run):
    rows = list(csv.DictReader(io.StringIO(to_csv([run]))))
    assert tuple(rows[0]) == COLUMNS
    for step, found in ((0, run.first), (20, run.last)):
        values = {row["metric"]: row for row in rows if row["step"] == str(step)}
        assert set(values) == set(found.summary)
        for name, value in found.summary.items():
            assert float(values[name]["value"] or "nan") == pytest.approx(value, rel=0, abs=0, nan_ok=True)
            ends = found.intervals.get(name)
            assert values[name]["low"] == ("" if ends is None or math.isnan(ends[0]) else repr(ends[0]))


@pytest.mark.parametrize("name", ["=cmd", "+1", "-1", "@a"])
def test_no_name_becomes_a_formula(name, run):
    run.name = name
    assert to_csv([run]).splitlines()[1].startswith(f"'{name},")


def test_a_comparison_begins_with_the_main_metrics(run):
    names = compared_names([run])
    assert names[:2] == ["forget_quality", "model_utility"]
    assert set(names) == set(run.last.summary)


def test_a_value_without_an_interval_has_none():
    assert (Value(0.5).text, Value(0.5).interval, Value(0.5, 0.25, 0.75).interval) == ("0.500", "", "0.250 to 0.750")


def test_a_change_is_named_where_it_is_more_than_the_choice_of_rows_makes(tmp_path):
    """The same rows, so what counts is each row's difference: one that moves every row a little is clear, though both
    intervals overlap; one that moves rows to and fro is not, whatever the means."""
    start, end = evaluation(0, 0.9, 0.9), evaluation(5, 0.9, 0.9)
    draw = random.Random(0)
    for key, row in start.examples["retain"].items():
        before = draw.uniform(0.2, 0.9)
        row["probability"], end.examples["retain"][key]["probability"] = before, before + 0.02
        row["extraction_strength"] = 0.5
        end.examples["retain"][key]["extraction_strength"] = 0.8 if int(key) % 2 else 0.25
    for one in (start, end):
        summarise(one)
    (run,) = read_runs([make_run(tmp_path / "npo" / "1", start, end, losses=False)])
    found = {line.name: line for line in lines(run)}
    probability, strength = found["retain/probability"], found["retain/extraction_strength"]
    assert probability.before.high > probability.after.low
    assert probability.change == "better"
    assert abs(strength.after.value - strength.before.value) > 0.005
    assert strength.change == "no clear difference"


def test_what_goes_past_where_it_should_be_is_no_improvement():
    changes = Changes(None, evaluation(0, 0.9, 0.9))
    assert changes.word("privleak", Value(-100.0, -100.0, -100.0), Value(84.0, 51.0, 142.0)) == "overshot"
    assert changes.word("privleak", Value(-100.0, -100.0, -100.0), Value(-20.0, -30.0, -10.0)) == "better"
    assert changes.word("privleak", Value(-20.0, -30.0, -10.0), Value(8.0, -9.0, 20.0)) == "no clear difference"
    # An interval that holds the aim may be as near as can be, so what is left of it may be no improvement at all.
    assert changes.word("privleak", Value(3.0, -15.0, 20.0), Value(8.0, 6.0, 12.0)) == "no clear difference"
    assert changes.word("privleak", Value(-8.0, -20.0, 10.0), Value(-6.0, -8.0, -5.0)) == "no clear difference"
    assert changes.word("ks_forget_quality", Value(1e-9), Value(0.4)) == "better"  # of one number, without an interval
    assert changes.word("mia", Value(1.0, 1.0, 1.0), Value(0.992, 0.977, 1.0)) == "no clear difference"
