from __future__ import annotations

import json

import pytest

from unlearun.errors import UnlearunError
from unlearun.sweep.plan import DONE, Plan, Run, check_keys, digests, fit_arguments


def test_a_grid_is_every_combination_the_last_key_fastest():
    plan = Plan([], {"a.x": ["1", "2"], "a.y": ["3", "4", "5"]})
    assert [run.label for run in plan.runs] == [
        *("a.x=1 a.y=3", "a.x=1 a.y=4", "a.x=1 a.y=5"),
        *("a.x=2 a.y=3", "a.x=2 a.y=4", "a.x=2 a.y=5"),
    ]
    assert [run.number for run in plan.runs] == [1, 2, 3, 4, 5, 6]
    assert plan.total == 6


def test_a_grid_that_would_never_end_is_an_error():
    with pytest.raises(UnlearunError, match="the grid has 1000000 combinations"):
        Plan([], {key: [str(n) for n in range(100)] for key in "abc"})


def test_a_search_counts_its_trials():
    plan = Plan([], search={"k": "1..2"}, trials=5, runs=[Run(1, {"k": "1"})])
    assert plan.total == 5
    assert plan.keys == ["k"]


def test_what_is_written_is_read_again(tmp_path):
    plan = Plan(["--config", "rmu"], {"model.gamma": ["1", "ü"]})
    plan.runs[1] = Run(2, {"model.gamma": "ü"}, DONE, folder="2/rmu/1", forget_quality=0.5, seconds=2.0)
    plan.write(tmp_path)
    assert Plan.read(tmp_path) == plan


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "is no plan of a sweep"),
        ("[]", "is no plan of a sweep"),
        ("{", "is no JSON"),
        ('{"kind": "unlearun sweep"}', "is broken"),
        ('{"kind": "unlearun sweep", "arguments": [], "runs": [{"nummer": 1}]}', "is broken"),
    ],
)
def test_a_plan_that_is_none_is_explained(tmp_path, text, said):
    (tmp_path / "sweep.json").write_text(text)
    with pytest.raises(UnlearunError, match=said):
        Plan.read(tmp_path)


def test_the_same_work_is_known_however_it_is_launched():
    plan = Plan(["--config", "rmu"], {"model.gamma": ["1", "2"]}, configs={"rmu": "a"})
    stored = Plan(**{**json.loads(json.dumps(vars(plan), default=vars)), "runs": [Run(1, {})], "jobs": 4})
    assert plan.same_as(stored)
    for other in ({"arguments": []}, {"grid": {"model.gamma": ["1"]}}, {"configs": {"rmu": "b"}}, {"directory": "/x"}):
        assert not plan.same_as(Plan(**{**vars(plan), **other}))


def test_single_options_come_last_and_whole_parts_behind_the_configs():
    values = {"model": "NPO", "model.gamma": "[1, 2]"}
    assert fit_arguments(["--data.forget", "f"], values) == [
        "--model=NPO",
        "--data.forget",
        "f",
        "--model.gamma=[1, 2]",
    ]
    given = ["-c=a", "--trainer.max_epochs=1", "--config", "b", "--data.retain", "r"]
    assert fit_arguments(given, {"config": "c"}) == [*given[:4], "--config=c", *given[4:]]


@pytest.mark.parametrize("given", [["--model.gamma", "3"], ["--model.gamma=3"], ["--model.init_args.gamma", "3"]])
def test_what_varies_may_not_be_given_too(given):
    with pytest.raises(UnlearunError, match=r"model.gamma is to vary, but --model.gamma is given, too"):
        check_keys(given, ["model.gamma"])


def test_options_that_run_nothing_are_an_error():
    check_keys(["--config", "rmu"], ["config", "model.gamma"])
    with pytest.raises(UnlearunError, match="runs nothing"):
        check_keys(["--print_config=skip_null"], ["model.gamma"])


def test_a_config_is_known_by_what_is_in_it(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("a: 1")
    first = digests(["--config", str(file), f"--config={file}"], ["rmu"])
    assert list(first) == [str(file), "rmu"]
    file.write_text("a: 2")
    second = digests(["-c", str(file)], ["rmu"])
    assert first["rmu"] == second["rmu"]
    assert first[str(file)] != second[str(file)]
