"""What is read of a run folder."""

from __future__ import annotations

import pytest
from report_runs import evaluation, good_run, make_run

from unlearun.errors import UnlearunError
from unlearun.report.reported_run import read_runs


def test_a_run_has_its_evaluations_by_step_and_its_losses(tmp_path):
    (run,) = read_runs([good_run(tmp_path / "npo" / "1")])
    assert [one.step for one in run.evaluations] == [0, 10, 20]
    assert run.first is run.evaluations[0]
    assert (run.name, run.method, run.trained, run.comparable) == ("npo/1", "NPO", True, True)
    assert set(run.losses) == {"forget_loss", "retain_loss", "loss"}
    steps, values = run.losses["forget_loss"]
    assert steps == list(range(20))
    assert values == pytest.approx([2.0 - 0.05 * step for step in range(20)])


def test_steps_are_numbers_and_no_words(tmp_path):
    """As words, step=100 would stand before step=20."""
    folder = make_run(tmp_path / "npo" / "1", *(evaluation(step, 0.5, 0.5) for step in (100, 20, 3)))
    assert [one.step for one in read_runs([folder])[0].evaluations] == [3, 20, 100]


def test_an_evaluation_alone_has_nothing_before(tmp_path):
    (run,) = read_runs([make_run(tmp_path / "gold" / "1", evaluation(0, 0.5, 0.5), losses=False)])
    assert run.first is None
    assert not run.trained
    assert run.losses == {}


def test_a_start_of_other_rows_is_not_compared(tmp_path):
    start, end = evaluation(0, 0.9, 0.9), evaluation(5, 0.1, 0.9)
    start.fingerprint["sets"]["retain"]["digest"] = "another"
    (run,) = read_runs([make_run(tmp_path / "npo" / "1", start, end)])
    assert run.trained
    assert not run.comparable
    assert run.other_rows == ["retain"]


@pytest.mark.parametrize("broken", ["", "[", "- a\n", "\x00"])
def test_a_config_that_cannot_be_read_costs_only_itself(broken, tmp_path):
    folder = good_run(tmp_path / "npo" / "1")
    (folder / "config.yaml").write_text(broken)
    assert read_runs([folder])[0].config == {}


def test_a_broken_event_file_costs_only_its_picture(tmp_path):
    folder = good_run(tmp_path / "npo" / "1")
    for file in folder.glob("events.*"):
        file.write_bytes(b"\x07" * 999)
    assert read_runs([folder])[0].losses == {}


@pytest.mark.parametrize(("make", "said"), [(False, "is no folder"), (True, "has no eval/step=N.json")])
def test_what_is_no_run_is_said(make, said, tmp_path):
    if make:
        (tmp_path / "run").mkdir()
    with pytest.raises(UnlearunError, match=f"run {said}; expected a run folder, such as outputs/rmu/1"):
        read_runs([tmp_path / "run"])


def test_a_run_named_twice_is_said(tmp_path, monkeypatch):
    folder = good_run(tmp_path / "npo" / "1")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnlearunError, match="is named twice"):
        read_runs([folder, folder.relative_to(tmp_path)])
