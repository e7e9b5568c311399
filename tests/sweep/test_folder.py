from __future__ import annotations

import os

import pytest

from unlearun.errors import UnlearunError
from unlearun.sweep.folder import Sweep, find_or_make, held, note, open_sweep
from unlearun.sweep.plan import DIVERGED, DONE, FAILED, RUNNING, WAITING, Plan


def plan(*values: str) -> Plan:
    return Plan([], {"model.gamma": list(values or ("1", "2"))})


def test_a_new_sweep_gets_a_new_number(tmp_path):
    first, second = (find_or_make(tmp_path / "sweeps", plan(value), None, "rmu") for value in "12")
    assert [first.folder.name, second.folder.name] == ["rmu-1", "rmu-2"]
    assert find_or_make(tmp_path / "sweeps", plan("3"), None, "npo").folder.name == "npo-1"


def test_the_same_plan_is_found_again_in_the_folder_worked_on_last(tmp_path):
    for name, age in (("a", 300), ("b", 100), ("c", 200)):
        file = find_or_make(tmp_path, plan(), name, "rmu").folder / "sweep.json"
        os.utime(file, (file.stat().st_atime, file.stat().st_mtime - age))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "sweep.json").write_text("{")
    assert find_or_make(tmp_path, plan(), None, "rmu").folder.name == "b"
    assert find_or_make(tmp_path, plan("7"), None, "rmu").folder.name == "rmu-1"


def test_a_name_belongs_to_one_plan(tmp_path):
    mine = find_or_make(tmp_path, plan(), "mine", "rmu")
    assert find_or_make(tmp_path, plan(), "mine", "rmu") == mine
    with pytest.raises(UnlearunError, match="mine holds another sweep"):
        find_or_make(tmp_path, plan("7"), "mine", "rmu")


@pytest.mark.parametrize("name", ["", "a/b", "..", "."])
def test_a_name_is_the_name_of_a_folder(tmp_path, name):
    with pytest.raises(UnlearunError, match="--name is"):
        find_or_make(tmp_path, plan(), name, "rmu")


def test_files_of_others_are_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("")
    with pytest.raises(UnlearunError, match=r"holds files, but no sweep.json"):
        find_or_make(tmp_path, plan(), "mine", "rmu")
    (tmp_path / "file").write_text("")
    with pytest.raises(UnlearunError, match="choose another with --output_dir"):
        find_or_make(tmp_path / "file", plan(), None, "rmu")


def test_a_folder_that_is_no_sweep_is_explained(tmp_path):
    find_or_make(tmp_path, plan(), "rmu-1", "rmu")
    with pytest.raises(UnlearunError, match=r"holds no sweep.json.*Did you mean 'rmu-1'"):
        open_sweep(tmp_path / "rmu1")


def test_one_process_holds_a_sweep_and_others_are_told_which(tmp_path):
    sweep = find_or_make(tmp_path, plan(), None, "rmu")
    with held(sweep) as lock:
        note(lock, [12, 34])
        with pytest.raises(UnlearunError, match=r"is at work already \(process 12, 34\)"), held(sweep):
            pass
    with held(sweep):
        pass


def test_what_was_broken_off_waits_again_and_what_failed_on_demand():
    sweep = Sweep(None, plan("1", "2", "3", "4", "5"))
    states = (DONE, RUNNING, FAILED, DIVERGED, WAITING)
    for run, status in zip(sweep.plan.runs, states, strict=True):
        run.status, run.reason = status, "why" if status in (FAILED, DIVERGED) else ""
    sweep.again()
    assert [run.status for run in sweep.plan.runs] == [DONE, WAITING, FAILED, DIVERGED, WAITING]
    sweep.again(retry=True)
    assert [run.status for run in sweep.plan.runs] == [DONE, WAITING, WAITING, WAITING, WAITING]
    assert not any(run.reason for run in sweep.plan.runs)
