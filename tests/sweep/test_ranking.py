"""Scores are worked out by hand: 2 F K / (F + K), F forget quality and K what is left of model utility."""

from __future__ import annotations

from pathlib import Path

import pytest

from unlearun.sweep.folder import Sweep
from unlearun.sweep.plan import DIVERGED, DONE, FAILED, RUNNING, Plan, Run
from unlearun.sweep.ranking import kept, line, notes, ranked, report, score


def done(number, quality, before=0.8, after=0.8, measured="m"):
    return Run(
        number,
        {"model.gamma": str(number)},
        DONE,
        folder=f"{number}/rmu/1",
        seconds=18.2,
        forget_quality=quality,
        utility_before=before,
        utility_after=after,
        measured=measured,
    )


@pytest.mark.parametrize(
    ("quality", "before", "after", "expected"),
    [
        (0.4, 0.8, 0.6, 0.6 / 1.15),  # K = 0.75: 2 * 0.4 * 0.75 / 1.15
        (0.5, 0.8, 0.8, 2 / 3),
        (0.5, 0.8, 0.9, 2 / 3),  # K is 1 at most
        (0.0, 0.8, 0.8, 0.0),
        (0.5, 0.8, 0.0, 0.0),
        (0.5, 0.0, 0.4, None),
        (0.5, None, 0.4, None),
        (0.5, 0.8, None, None),
        (None, 0.8, 0.8, None),
    ],
)
def test_the_score_is_the_harmonic_mean_of_what_was_forgotten_and_kept(quality, before, after, expected):
    assert score(done(1, quality, before, after)) == pytest.approx(expected)


def test_more_than_the_start_is_seen_but_not_counted():
    assert kept(done(1, 0.5, 0.8, 0.9)) == pytest.approx(1.125)


def test_the_best_comes_first_and_what_has_no_score_behind():
    runs = [
        done(1, 0.2),  # 0.333
        done(2, 0.9, None, None),
        done(3, 0.6, 0.8, 0.4),  # K = 0.5: 0.545
        done(4, 0.95, None, 0.4),
        done(5, 0.5),  # 0.667
        Run(6, {}, FAILED, "why"),
        done(7, 0.5, 0.8, 0.9),  # 0.667, and kept more
        Run(8, {}, RUNNING),
    ]
    assert [run.number for run in ranked(runs)] == [7, 5, 3, 1, 4, 2]


def test_one_line_says_what_became_of_a_run():
    sweep = Sweep(Path("outputs/sweeps/rmu-1"), Plan([], {"model.gamma": ["1", "2", "3"]}))
    assert line(sweep, done(2, 0.61, 0.73, 0.72)) == (
        "2/3 model.gamma=2: forget_quality 0.610, model_utility 0.720 (0.986 of the start), score 0.754, 18 s"
    )
    assert (
        line(sweep, done(2, 0.61, None, 0.72)) == "2/3 model.gamma=2: forget_quality 0.610, model_utility 0.720, 18 s"
    )
    assert line(sweep, done(2, 0.61, None, None)) == "2/3 model.gamma=2: forget_quality 0.610, 18 s"
    broken = Run(3, {"model.gamma": "3"}, DIVERGED, "the loss is nan", seconds=400)
    said = "3/3 model.gamma=3: diverged, the loss is nan (see outputs/sweeps/rmu-1/3.log), 7 min"
    assert line(sweep, broken) == said


def reported(*runs, total=None):
    plan = Plan(["--config", "my rmu"], {"model.gamma": [str(n + 1) for n in range(total or len(runs))]})
    plan.runs[: len(runs)] = runs
    return report(Sweep(Path("outputs/sweeps/rmu-1"), plan)).split("\n")


def test_the_report_is_a_table_the_best_and_its_command():
    lines = reported(done(1, 0.2), done(2, 0.4, 0.8, 0.6), Run(3, {"model.gamma": "3"}, FAILED, "exit status 1: x"))
    assert [" ".join(text.split()) for text in (lines[0], *lines[2:5])] == [
        "run model.gamma forget_quality model_utility (start -> end) of the start score run folder",
        "2 2 0.400 0.800 -> 0.600 0.750 0.522 2/rmu/1",
        "1 1 0.200 0.800 -> 0.800 1.000 0.333 1/rmu/1",
        "3 3 - - - - failed: exit status 1: x; see 3.log",
    ]
    assert lines[5:] == [
        "",
        "best: outputs/sweeps/rmu-1/2/rmu/1",
        "run it again: unlearun fit --config 'my rmu' --model.gamma=2",
    ]


def test_without_utility_forget_quality_ranks_alone_and_it_says_so():
    lines = reported(done(1, 0.2, None, None), done(2, 0.4, None, None))
    assert "model_utility" not in lines[0]
    assert "score" not in lines[0]
    assert [text.split()[0] for text in lines[2:4]] == ["2", "1"]
    assert lines[5].startswith("ranked by forget_quality alone: model_utility was not measured")
    assert lines[-1].endswith("--model.gamma=2")


def test_a_ranking_of_a_part_says_how_to_go_on():
    lines = reported(done(1, 0.2), Run(2, {"model.gamma": "2"}, RUNNING), total=3)
    said = "1 of 3 runs have ended, 1 is at work; go on with: unlearun sweep outputs/sweeps/rmu-1"
    assert said in lines
    assert reported(total=3) == ["no run of outputs/sweeps/rmu-1 has ended yet"]


def test_where_all_failed_it_says_what_to_do():
    assert reported(Run(1, {"model.gamma": "1"}, FAILED, "x"))[-1].startswith("no run can be ranked; run again")


def test_what_cannot_be_compared_is_named():
    runs = ranked([done(1, 0.5), done(2, 0.4, measured="other"), done(3, 0.3, None, 0.7), done(4, 0.2)])
    first, second = notes(runs)
    assert first.startswith("without a score")
    assert first.endswith(": run 3")
    assert second.startswith("not comparable with the best")
    assert second.endswith(": run 2")
    assert notes([done(1, 0.5), done(2, 0.4)]) == []


def test_the_command_of_the_best_says_where_it_belongs():
    plan = Plan(["--config", "mine.yaml"], {"model.gamma": ["1"]}, directory="/elsewhere")
    plan.runs = [done(1, 0.5)]
    last = report(Sweep(Path("s"), plan)).split("\n")[-1]
    assert last == "run it again, in /elsewhere: unlearun fit --config mine.yaml --model.gamma=1"


def test_a_score_of_0_is_no_best():
    (said,) = notes([done(1, 0.0)])
    assert said.startswith("every score is 0")
    assert notes([]) == []
