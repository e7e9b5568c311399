from __future__ import annotations

import math

import pytest

from unlearun.errors import UnlearunError
from unlearun.sweep.folder import Sweep, open_sweep
from unlearun.sweep.plan import DIVERGED, DONE, FAILED, Plan
from unlearun.sweep.search import Search, need_optuna

pytest.importorskip("optuna")

SPACE = {"optimizer.lr": "1e-5..1e-1:log", "trainer.max_epochs": "2..6", "model": "RMU,NPO"}


def make(folder, trials, space=SPACE, sampler="tpe"):
    folder.mkdir(parents=True, exist_ok=True)
    sweep = Sweep(folder, Plan([], search=space, sampler=sampler, trials=trials))
    sweep.save()
    return sweep


def finish(search, run):
    """A run is the better the nearer its learning rate is to 1e-3."""
    run.status, run.utility_before, run.utility_after = DONE, 1.0, 1.0
    run.forget_quality = 1 / (1 + abs(math.log10(float(run.values["optimizer.lr"])) + 3))
    search.ended(run)
    search.sweep.save()


def drawn(sweep, limit=99):
    search = Search(sweep)
    while limit and (run := search.next()) is not None:
        finish(search, run)
        limit -= 1
    return [run.values for run in sweep.plan.runs]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_values_are_in_their_ranges_and_all_different(tmp_path, sampler):
    values = drawn(make(tmp_path / "a", 12, sampler=sampler))
    assert len(values) == 12
    assert all(1e-5 <= float(found["optimizer.lr"]) <= 1e-1 for found in values)
    assert {found["trainer.max_epochs"] for found in values} <= set("23456")
    assert {found["model"] for found in values} == {"RMU", "NPO"}
    assert len({tuple(found.values()) for found in values}) == 12


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_search_that_was_stopped_draws_what_it_would_have_drawn(tmp_path, sampler):
    whole = drawn(make(tmp_path / "whole", 14, sampler=sampler))
    parts = make(tmp_path / "parts", 14, sampler=sampler)
    drawn(parts, limit=5)
    broken_off = Search(open_sweep(parts.folder))
    run = broken_off.next()
    broken_off.sweep.save()
    lock = parts.folder / "study.log.lock"
    lock.symlink_to("study.log")  # as a kill leaves it
    again = open_sweep(parts.folder)
    again.again()
    assert Search(again).next().values == run.values
    assert drawn(again) == whole


def test_a_draw_that_never_came_into_the_plan_is_given_up(tmp_path):
    sweep = make(tmp_path, 3)
    Search(sweep).next()  # a kill before the plan is written
    search = Search(open_sweep(tmp_path))
    assert [trial.state.name for trial in search.study.trials] == ["FAIL"]
    assert len(drawn(search.sweep)) == 3


def test_more_trials_go_on_with_the_same_search(tmp_path):
    sweep = make(tmp_path, 3)
    first = drawn(sweep)
    sweep.plan.trials = 5
    assert drawn(sweep)[:3] == first
    assert len(sweep.plan.runs) == 5


def test_a_small_space_is_used_up_and_nothing_runs_twice(tmp_path):
    sweep = make(tmp_path, 9, {"optimizer.lr": "0.1,0.01", "trainer.max_epochs": "1..2"})
    search = Search(sweep)
    while (run := search.next()) is not None:
        finish(search, run)
    assert len({run.label for run in sweep.plan.runs}) == len(sweep.plan.runs) == 4
    assert search.used_up


def test_what_diverged_is_bad_and_what_failed_says_nothing(tmp_path):
    search = Search(make(tmp_path, 3))
    for status in (DIVERGED, FAILED):
        run = search.next()
        run.status, run.reason = status, "why"
        search.ended(run)
    found = [(trial.state.name, trial.value) for trial in search.study.trials]
    assert found == [("COMPLETE", 0.0), ("FAIL", None)]


def test_a_missing_optuna_says_what_to_install(monkeypatch):
    monkeypatch.setattr("unlearun.sweep.search.find_spec", lambda name: None)
    with pytest.raises(UnlearunError, match=r"needs the package optuna; pip install 'unlearun\[sweep\]'"):
        need_optuna()


@pytest.mark.parametrize(("status", "state"), [(DIVERGED, "COMPLETE"), (FAILED, "FAIL")])
def test_what_was_tried_again_is_told_again(tmp_path, status, state):
    """Else the search would keep away from values that were good in the end."""
    sweep = make(tmp_path, 3)
    search = Search(sweep)
    run = search.next()
    run.status, run.reason = status, "it was so"
    search.ended(run)
    sweep.again(retry=True)
    sweep.save()
    search = Search(open_sweep(tmp_path))
    run = search.next()
    finish(search, run)
    first, second = search.study.trials
    assert (first.state.name, second.state.name) == (state, "COMPLETE")
    assert second.params == first.params
    assert second.value == pytest.approx(2 * run.forget_quality / (1 + run.forget_quality))
    assert open_sweep(tmp_path).plan.runs[0].trial == 1
    run.trial = 0  # as after a kill before the plan was written
    search.ended(run)
    assert len(search.study.trials) == 2
    assert run.trial == 1
