from __future__ import annotations

import math

import pytest

from unlearun.records import Evaluation
from unlearun.sweep.outcome import exit_reason, judge, newest, run_folders, tail
from unlearun.sweep.plan import DIVERGED, DONE, FAILED, RUNNING, Run

PARTS = {"forget_quality": ["1-probability"], "model_utility": ["retain/probability"]}


def evaluated(folder, step, parts=PARTS, rows=4, **summary):
    fingerprint = {"sets": {"forget": {"rows": rows, "digest": "abc"}}}
    found = Evaluation(step, summary, fingerprint=fingerprint, parts=parts)
    found.write(folder / "eval" / f"step={step}.json")


def judged(folder, status=0, said=""):
    run = Run(1, {})
    judge(run, folder, status, said)
    return run


def test_the_last_evaluation_counts_and_utility_at_the_first(tmp_path):
    evaluated(tmp_path, 0, forget_quality=0.1, model_utility=0.8)
    evaluated(tmp_path, 9, forget_quality=0.3, model_utility=0.7)
    evaluated(tmp_path, 10, forget_quality=0.5, model_utility=0.6)
    run = judged(tmp_path)
    assert (run.status, run.reason) == (DONE, "")
    assert (run.forget_quality, run.utility_before, run.utility_after) == (0.5, 0.8, 0.6)


def test_other_rows_or_parts_are_told_apart(tmp_path):
    digests = []
    for name, rows, parts in (("a", 4, PARTS), ("b", 4, PARTS), ("c", 5, PARTS), ("d", 4, {"forget_quality": ["x"]})):
        evaluated(tmp_path / name, 3, parts, rows, forget_quality=0.5)
        digests.append(judged(tmp_path / name).measured)
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_utility_of_other_parts_at_the_start_is_no_start(tmp_path):
    evaluated(tmp_path, 0, {**PARTS, "model_utility": ["retain/rouge"]}, forget_quality=0.1, model_utility=0.8)
    evaluated(tmp_path, 5, forget_quality=0.5, model_utility=0.6)
    run = judged(tmp_path)
    assert (run.status, run.utility_before, run.utility_after) == (DONE, None, 0.6)


@pytest.mark.parametrize(
    ("steps", "status", "reason"),
    [
        ({}, FAILED, "it left no evaluation"),
        ({0: {"forget_quality": 0.5}}, FAILED, "it took no step"),
        ({0: {}, 5: {"mia": 0.5}}, FAILED, "eval/step=5.json holds no forget_quality"),
        ({5: {"forget_quality": math.nan, "model_utility": 0.5}}, DIVERGED, "forget_quality at the end is no finite"),
        ({5: {"forget_quality": 0.5, "model_utility": math.inf}}, DIVERGED, "model_utility at the end is no finite"),
    ],
)
def test_records_without_a_result_have_a_reason(tmp_path, steps, status, reason):
    for step, summary in steps.items():
        evaluated(tmp_path, step, **summary)
    run = judged(tmp_path)
    assert run.status == status
    assert reason in run.reason
    assert run.forget_quality is None


def test_broken_records_are_a_reason_too(tmp_path):
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "step=5.json").write_text("{")
    assert "is no JSON" in judged(tmp_path).reason
    assert judged(None).reason == "it left no run folder"


def test_a_process_that_failed_is_failed_whatever_it_left(tmp_path):
    evaluated(tmp_path, 5, forget_quality=0.5)
    run = judged(tmp_path, 1, "Traceback\n  File x\ntorch.OutOfMemoryError: CUDA out of memory.\n")
    assert (run.status, run.reason) == (FAILED, "exit status 1: torch.OutOfMemoryError: CUDA out of memory.")
    assert run.forget_quality is None


@pytest.mark.parametrize(
    ("status", "said", "reason"),
    [
        (2, "Epoch 1\runlearun: error: no file x\nbye", "exit status 2: no file x"),
        (1, "a\nValueError: one\n  two\nsrun: error: task 0\n", "exit status 1: ValueError: one"),
        (137, "$ fit\nslurmstepd: Out Of Memory\n\n", "exit status 137: slurmstepd: Out Of Memory"),
        (3, "", "exit status 3"),
        (-9, "x", "ended by SIGKILL, as systems do when memory runs out"),
        (-11, "x", "ended by SIGSEGV"),
        (-99, "x", "ended by signal 99"),
    ],
)
def test_the_reason_is_what_was_said_last_that_matters(status, said, reason):
    assert exit_reason(status, said) == reason


def test_a_long_reason_is_cut():
    assert len(exit_reason(1, f"ValueError: {'x' * 999}")) == 160


def test_a_run_that_its_guard_has_stopped_diverged(tmp_path):
    evaluated(tmp_path, 5, forget_quality=0.5)
    run = Run(1, {}, RUNNING)
    judge(run, tmp_path, 3, "unlearun: error: step 2: loss is nan; the last good weights are x\nturn: lr down\n")
    assert (run.status, run.reason) == (DIVERGED, "step 2: loss is nan; the last good weights are x")


def test_the_tail_of_a_log_is_that_of_this_attempt(tmp_path):
    (tmp_path / "1.log").write_bytes(b"first\nsecond \xff\n")
    assert tail(tmp_path / "1.log", 6) == "second \ufffd\n"


def test_the_newest_run_folder_has_the_greatest_number(tmp_path):
    for name in ("rmu/9", "rmu/10", "rmu/x"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "rmu" / "11").write_text("")
    assert newest(run_folders(tmp_path)) == tmp_path / "rmu" / "10"
    assert newest(set()) is None
