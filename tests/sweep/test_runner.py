from __future__ import annotations

import sys

import pytest
from sweep.fake_fit import LAUNCHER

from unlearun.errors import UnlearunError
from unlearun.sweep.children import read_launcher
from unlearun.sweep.folder import Sweep, find_or_make, open_sweep
from unlearun.sweep.plan import DIVERGED, DONE, FAILED, Plan
from unlearun.sweep.runner import Listed, Runner


def run(tmp_path, *gammas, launcher=LAUNCHER, jobs=1, **others):
    plan = Plan(["--config", "rmu"], {"model.gamma": list(gammas)}, launcher=launcher, jobs=jobs, **others)
    sweep = find_or_make(tmp_path, plan, None, "rmu")
    told = []
    Runner(sweep, Listed(sweep), told.append).run()
    return sweep, told


def test_each_run_leaves_a_log_a_folder_and_its_result(tmp_path):
    sweep, told = run(tmp_path, "4", "2")
    assert told == sweep.plan.runs == open_sweep(sweep.folder).plan.runs
    first = told[0]
    assert (first.status, first.folder, first.forget_quality) == (DONE, "1/rmu/1", 0.4)
    assert (first.utility_before, first.utility_after) == (0.8, pytest.approx(0.6))
    assert first.seconds < 10
    command = sweep.log(first).read_text()
    assert command.startswith(
        f"$ {LAUNCHER} {sys.executable} -m unlearun fit --config rmu --model.gamma=4 --output_dir"
    )
    assert (sweep.folder / "2" / "rmu" / "1" / "eval" / "step=5.json").is_file()


def test_what_fails_or_diverges_is_marked_and_the_rest_goes_on(tmp_path):
    sweep, told = run(tmp_path, "crash", "memory", "nan", "nothing", "3")
    assert [(run.status, run.reason) for run in told] == [
        (FAILED, "exit status 1: ValueError: the matrix is not square"),
        (FAILED, "ended by SIGKILL, as systems do when memory runs out"),
        (DIVERGED, "forget_quality at the end is no finite number"),
        (FAILED, "it left no evaluation"),
        (DONE, ""),
    ]
    assert "Traceback" in sweep.log(told[0]).read_text()


def test_several_at_a_time_have_slots_of_their_own(tmp_path):
    """Each run waits until its partner is there, so that this ends only if two are at work."""
    script = tmp_path / "pair.py"
    script.write_text(
        "import pathlib, sys, time, runpy\n"
        "here, slot = pathlib.Path(sys.argv[1]), sys.argv[2]\n"
        "(here / f'slot-{slot}').write_text('')\n"
        "end = time.monotonic() + 20\n"
        "while len(list(here.glob('slot-*'))) < 2 and time.monotonic() < end: time.sleep(0.01)\n"
        "assert len(list(here.glob('slot-*'))) == 2\n"
        "sys.argv = sys.argv[2:]\n"
        f"runpy.run_path({LAUNCHER.split()[1]!r}, run_name='__main__')\n"
    )
    _, told = run(tmp_path, "1", "2", launcher=f"{sys.executable} {script} {tmp_path} {{slot}}", jobs=2)
    assert {run.status for run in told} == {DONE}
    assert sorted(path.name for path in tmp_path.glob("slot-*")) == ["slot-0", "slot-1"]


def test_runs_stand_where_the_user_stood_when_the_sweep_began(tmp_path, monkeypatch):
    began = tmp_path / "began"
    began.mkdir()
    monkeypatch.chdir(began)
    plan = Plan(
        ["--config", "rmu"], {"model.gamma": ["1"]}, launcher=f"{sys.executable} -c 'import os; print(os.getcwd())'"
    )
    sweep = find_or_make(began / "sweeps", plan, None, "rmu")
    monkeypatch.chdir(tmp_path)
    moved = Sweep(sweep.folder.relative_to(tmp_path), sweep.plan)
    Runner(moved, Listed(moved), print).run()
    log = sweep.log(plan.runs[0]).read_text().splitlines()
    assert log[0].endswith(f"--output_dir {sweep.folder / '1'}")
    assert log[1] == str(began)


@pytest.mark.parametrize(
    ("launcher", "said"),
    [("srunn -N1", "there is no command 'srunn' here"), ("env 'x", "cannot be read: No closing quotation")],
)
def test_a_wrong_launcher_is_explained(launcher, said):
    with pytest.raises(UnlearunError, match=said):
        read_launcher(launcher)


def test_a_run_that_cannot_be_started_is_explained(tmp_path, monkeypatch):
    monkeypatch.setattr("unlearun.sweep.runner.read_launcher", lambda text: [str(tmp_path)])
    with pytest.raises(UnlearunError, match="run 1 cannot be started"):
        run(tmp_path, "1")
