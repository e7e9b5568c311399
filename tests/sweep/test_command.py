"""``unlearun sweep`` from its command line: plans, stops, goes on, ranks."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from unlearun.__main__ import main
from unlearun.sweep.folder import Sweep
from unlearun.sweep.plan import Plan

GRID = ["--config", "rmu", "--grid", "model.gamma=2,4,8", "--name", "s"]
FOLDER = "outputs/sweeps/s"


def states(tmp_path):
    return [run.status for run in Plan.read(tmp_path / FOLDER).runs]


def test_a_sweep_prints_a_line_a_run_and_a_ranking(sweep, tmp_path, capsys):
    """K is 0.875, 0.75 and 0.5, so that the scores are 0.35/1.075, 0.6/1.15 and 0.8/1.3."""
    assert sweep(*GRID) == 0
    lines = capsys.readouterr().out.split("\n")
    assert lines[0] == "3 runs in outputs/sweeps/s; run N prints into N.log there"
    assert re.fullmatch(
        r"2/3 model.gamma=4: forget_quality 0.400, model_utility 0.600 \(0.750 of the start\), score 0.522, \d+ s",
        lines[2],
    )
    table = [line.split() for line in lines[7:10]]
    assert [(row[0], row[-2], row[-1]) for row in table] == [
        ("3", "0.615", "3/rmu/1"),
        ("2", "0.522", "2/rmu/1"),
        ("1", "0.326", "1/rmu/1"),
    ]
    assert "best: outputs/sweeps/s/3/rmu/1" in lines
    assert "run it again: unlearun fit --config rmu --model.gamma=8" in lines


def test_the_same_command_skips_what_is_done(sweep, tmp_path, capsys):
    assert sweep(*GRID[:4]) == 0
    before = (tmp_path / "outputs/sweeps/rmu-1/1.log").read_text()
    capsys.readouterr()
    assert sweep(*GRID[:4]) == 0
    printed = capsys.readouterr().out
    assert "all 3 runs of outputs/sweeps/rmu-1 have ended" in printed
    assert "best: outputs/sweeps/rmu-1/3/rmu/1" in printed
    assert (tmp_path / "outputs/sweeps/rmu-1/1.log").read_text() == before
    assert sweep("--config", "rmu", "--grid", "model.gamma=2,4") == 0
    assert (tmp_path / "outputs/sweeps/rmu-2").is_dir()


def test_failures_are_in_the_table_and_run_again_on_demand(sweep, tmp_path, capsys):
    assert sweep("--config", "rmu", "--grid", "model.gamma=crash,nan,4", "--name", "s") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "1/3 model.gamma=crash: failed, exit status 1: ValueError: the matrix is not square" in printed
    assert "(see outputs/sweeps/s/1.log)" in printed
    assert "diverged: forget_quality at the end is no finite number; see 2.log" in printed
    assert sweep(FOLDER, "--retry") == 0
    assert "going on in outputs/sweeps/s: 1 of 3 runs have ended" in capsys.readouterr().out
    assert (tmp_path / FOLDER / "1.log").read_text().count("Traceback") == 2
    assert states(tmp_path) == ["failed", "diverged", "done"]


def test_where_no_run_can_be_ranked_the_status_is_1(sweep, capsys):
    assert sweep("--config", "rmu", "--grid", "model.gamma=crash") == 1
    assert "no run can be ranked" in capsys.readouterr().out


@pytest.mark.parametrize(("signal", "status"), [("interrupt", 130), ("terminate", 143)])
def test_a_stop_ends_the_child_and_the_same_command_goes_on(signal, status, driven, tmp_path):
    command = ["--config", "rmu", "--grid", f"model.gamma=2,{signal},4", "--name", "s"]
    stopped = driven(*command)
    assert stopped.returncode == status
    assert "stopped: 1 of 3 runs have ended. Go on with: unlearun sweep outputs/sweeps/s" in stopped.stdout
    assert stopped.stderr == ("\nunlearun: interrupted\n" if signal == "interrupt" else "")
    assert states(tmp_path) == ["done", "waiting", "waiting"]
    again = driven(*command)
    assert again.returncode == 0
    assert "going on in outputs/sweeps/s: 1 of 3 runs have ended" in again.stdout
    runs = Plan.read(tmp_path / FOLDER).runs
    assert [run.folder for run in runs] == ["1/rmu/1", "2/rmu/2", "3/rmu/1"]
    assert not (tmp_path / FOLDER / "1" / "rmu" / "2").exists()


def test_after_a_kill_it_goes_on_once_the_child_has_ended(driven, tmp_path):
    killed = driven("--config", "rmu", "--grid", "model.gamma=2,kill,4", "--name", "s", FAKE_SLEEP="3")
    assert killed.returncode == -9
    assert states(tmp_path) == ["done", "running", "waiting"]
    too_early = driven(FOLDER)
    assert too_early.returncode == 2
    assert re.search(r"outputs/sweeps/s is at work already \(process \d+, \d+\)", too_early.stderr)
    child = int(re.search(r"process \d+, (\d+)", too_early.stderr)[1])
    subprocess.run([sys.executable, "-c", f"import os, signal; os.kill({child}, signal.SIGKILL)"], check=True)
    again = driven(FOLDER)
    assert again.returncode == 0
    assert states(tmp_path) == ["done", "done", "done"]


def test_show_prints_the_ranking_of_what_is_done(sweep, tmp_path, capsys):
    assert sweep(*GRID) == 0
    plan = Plan.read(tmp_path / FOLDER)
    plan.runs[2].status = "waiting"
    plan.write(tmp_path / FOLDER)
    capsys.readouterr()
    assert main(["sweep", FOLDER, "--show"]) == 0
    printed = capsys.readouterr().out
    assert "2 of 3 runs have ended; go on with: unlearun sweep outputs/sweeps/s" in printed
    assert "best: outputs/sweeps/s/2/rmu/1" in printed
    assert states(tmp_path) == ["done", "done", "waiting"]


def test_a_folder_goes_on_as_it_was_launched(sweep, tmp_path):
    assert sweep(*GRID, "--jobs", "2") == 0
    plan = Plan.read(tmp_path / FOLDER)
    plan.runs[0].status = "running"
    plan.write(tmp_path / FOLDER)
    assert main(["sweep", FOLDER]) == 0
    assert states(tmp_path) == ["done", "done", "done"]
    assert Plan.read(tmp_path / FOLDER).jobs == 2


def test_a_search_draws_and_goes_on_with_more(sweep, tmp_path, capsys):
    pytest.importorskip("optuna")
    search = ["--config", "rmu", "--search", "model.gamma=1..9.0", "--name", "s"]
    assert sweep(*search, "--trials", "2") == 0
    assert "2 runs in outputs/sweeps/s" in capsys.readouterr().out
    assert main(["sweep", *search]) == 2
    assert "add --trials 20" in capsys.readouterr().err
    assert main(["sweep", FOLDER, "--trials", "4"]) == 0
    assert states(tmp_path) == ["done"] * 4
    assert sweep(*search, "--trials", "4") == 0
    assert "all 4 runs" in capsys.readouterr().out


def test_a_search_of_few_values_ends_with_them(sweep, tmp_path, capsys):
    pytest.importorskip("optuna")
    assert sweep("--config", "rmu", "--search", "model.gamma=1,2", "--trials", "9", "--name", "s") == 0
    assert "no further values to draw: the search ends after 2 of 9 runs" in capsys.readouterr().out
    assert Plan.read(tmp_path / FOLDER).total == 2


def test_a_config_that_has_changed_makes_another_sweep(sweep, tmp_path, capsys):
    file = tmp_path / "mine.yaml"
    file.write_text("a: 1")
    command = ["--config", "mine.yaml", "--grid", "model.gamma=1,2"]
    assert sweep(*command) == 0
    plan = Plan.read(tmp_path / "outputs/sweeps/rmu-1")
    plan.runs[0].status = "waiting"
    plan.write(tmp_path / "outputs/sweeps/rmu-1")
    file.write_text("a: 2")
    assert main(["sweep", "outputs/sweeps/rmu-1"]) == 2
    assert "the config mine.yaml has changed since outputs/sweeps/rmu-1 began" in capsys.readouterr().err
    assert sweep(*command) == 0
    assert (tmp_path / "outputs/sweeps/rmu-2").is_dir()


def test_a_full_disk_is_explained(sweep, monkeypatch, capsys):
    def save(self):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("unlearun.sweep.folder.Sweep.save", save)
    monkeypatch.setattr("unlearun.sweep.command.find_or_make", lambda root, plan, name, default: Sweep(root, plan))
    monkeypatch.setattr("unlearun.sweep.command.open_sweep", lambda folder: Sweep(folder, Plan([], {"a.b": ["1"]})))
    Path("outputs/sweeps").mkdir(parents=True)
    assert sweep(*GRID) == 2
    assert "the sweep cannot go on: [Errno 28] No space left on device; mend that" in capsys.readouterr().err


MISTAKES = {
    "nothing to vary": (["--config", "rmu"], "there is nothing to vary; add --grid KEY=A,B"),
    "grid and search": (["--grid", "a.b=1", "--search", "a.c=1..2"], "--grid runs every combination, --search draws"),
    "trials of a grid": (["--grid", "a.b=1", "--trials", "3"], "--trials and --sampler belong to --search"),
    "no jobs": (["--grid", "a.b=1", "--jobs", "0"], "--jobs is 0; it must be at least 1"),
    "a word for a number": (["--grid", "a.b=1", "--jobs", "x"], "argument --jobs: invalid int value: 'x'"),
    "a config without its flag": (["rmu", "--grid", "a.b=1"], "rmu stands where the folder of a sweep does"),
    "no folder": (["nowhere"], "nowhere holds no sweep.json"),
    "nothing to show": (["--show"], "unlearun sweep FOLDER --show"),
    "given and varied": (["--model.gamma", "1", "--grid", "model.gamma=1,2"], "is to vary, but --model.gamma is given"),
    "a wrong launcher": (["--grid", "a.b=1", "--launcher", "srunn -n1"], "there is no command 'srunn' here"),
    "an unknown config": (["--config", "rmuu", "--grid", "a.b=1"], "Did you mean 'rmu'?"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_exit_status_2(mistake, sweep, tmp_path, capsys):
    arguments, said = MISTAKES[mistake]
    assert main(["sweep", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.startswith("unlearun: error: ")
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_help_explains_all_with_examples(arguments, capsys):
    with pytest.raises(SystemExit) as done:
        main(["sweep", *arguments])
    assert done.value.code == 0
    printed = capsys.readouterr().out
    for word in ("--grid", "--search", "--trials", "--sampler", "--name", "--jobs", "--launcher", "--show", "--retry"):
        assert word in printed
    assert "unlearun sweep --config rmu --grid model.gamma=1,2,5 --grid optimizer.lr=1e-3,1e-2" in printed


def test_help_and_show_load_no_torch(sweep, tmp_path):
    assert sweep(*GRID) == 0
    code = (
        "import sys, unlearun.__main__ as m\n"
        f"m.main(['sweep', {FOLDER!r}, '--show'])\n"
        "print({'torch', 'lightning', 'optuna', 'tensorboard'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("\nset()\n")


def test_the_pocket_model_end_to_end(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small = ["--trainer.max_epochs", "1", "--data.max_eval_rows", "8", "--trainer.accelerator", "cpu"]
    assert main(["sweep", "--config", "rmu", *small, "--grid", "optimizer.lr=3e-2,1e30"]) == 0
    folder = tmp_path / "outputs" / "sweeps" / "rmu-1"
    good, broken = Plan.read(folder).runs
    assert (good.status, broken.status) == ("done", "diverged")
    assert broken.reason.startswith("step 2: loss is nan")
    stored = {step: json.loads((folder / good.folder / f"eval/step={step}.json").read_text()) for step in (0, 5)}
    assert good.forget_quality == stored[5]["summary"]["forget_quality"]
    assert good.utility_before == stored[0]["summary"]["model_utility"]
    assert good.utility_after == stored[5]["summary"]["model_utility"]
    assert "run it again: unlearun fit --config rmu --trainer.max_epochs 1" in capsys.readouterr().out
