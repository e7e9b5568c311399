"""What tasks of lm-evaluation-harness have found stands in every form of a report."""

from __future__ import annotations

import csv
import json

import pytest
from conftest import PICTURES, no_pictures
from report_runs import bad_run, good_run

from unlearun.report.card import card
from unlearun.report.markdown import comparison_markdown, run_markdown
from unlearun.report.page import comparison_page, run_page
from unlearun.report.reported_run import read_runs
from unlearun.report.tasks import task_rows
from unlearun.report.values import to_csv

SETTINGS = {"dtype": "float32", "limit": 100, "num_fewshot": None, "chat": False, "random_seed": 0, "lm-eval": "0.4.13"}
ASKED = "100 questions, float32, lm-eval 0.4.13"


def kept(accuracy, error=0.05, **settings):
    metrics = {"acc": accuracy, "questions": 100.0, **({"acc_stderr": error} if error else {})}
    return {"metrics": metrics, "settings": {**SETTINGS, **settings}}


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch):
    monkeypatch.setattr(PICTURES, no_pictures)


@pytest.fixture
def folders(tmp_path):
    good, bad = good_run(tmp_path / "npo" / "1"), bad_run(tmp_path / "npo" / "2")
    (good / "lm_eval.json").write_text(json.dumps({"mmlu": kept(0.5), "<b>arc</b>": kept(0.25, error=None)}))
    (bad / "lm_eval.json").write_text(json.dumps({"mmlu": kept(0.75)}))
    return [good, bad]


def test_runs_stand_side_by_side(folders):
    arc, mmlu = task_rows(read_runs(folders))
    assert (mmlu.task, mmlu.metric, mmlu.asked) == ("mmlu", "acc", ASKED)
    first, second = mmlu.values
    assert (first.value, first.low, first.high) == pytest.approx(
        (0.5, 0.4038, 0.5962), abs=1e-4
    )  # Wilson, of 50 of 100
    assert second.value == 0.75
    assert arc.values[1] is None
    assert arc.values[0].interval == ""


def test_a_group_of_few_questions_is_another_than_the_whole(folders):
    """lm-eval does not count the questions of a group."""
    for folder, limit in zip(folders, (None, 5), strict=True):
        group = {"metrics": {"acc": 0.5, "acc_stderr": 0.01}, "settings": {**SETTINGS, "limit": limit}}
        (folder / "lm_eval.json").write_text(json.dumps({"mmlu": group}))
    assert [row.asked for row in task_rows(read_runs(folders))] == [
        "at most 5 questions a task, float32, lm-eval 0.4.13",
        "float32, lm-eval 0.4.13",
    ]


def test_an_interval_of_shares_lies_between_nothing_and_all(folders):
    """Wilson, of 20 of 20; a mean that is no share has its standard error."""
    metrics = {"acc": 1.0, "acc_stderr": 0.0, "word_perplexity": 12.0, "word_perplexity_stderr": 1.0, "questions": 20.0}
    (folders[0] / "lm_eval.json").write_text(json.dumps({"arc": {"metrics": metrics, "settings": SETTINGS}}))
    share, mean = (row.values[0] for row in task_rows(read_runs(folders[:1])))
    assert (share.low, share.high) == pytest.approx((20 / (20 + 1.96**2), 1.0))
    assert (mean.low, mean.high) == pytest.approx((12 - 1.96, 12 + 1.96))


def test_what_was_asked_otherwise_stands_in_a_row_of_its_own(folders):
    (folders[1] / "lm_eval.json").write_text(json.dumps({"mmlu": kept(0.75, num_fewshot=5, dtype="bfloat16")}))
    found = [row for row in task_rows(read_runs(folders)) if row.task == "mmlu"]
    assert [[value and value.value for value in row.values] for row in found] == [[None, 0.75], [0.5, None]]
    assert found[0].asked == "100 questions, 5 examples before each (seed 0), bfloat16, lm-eval 0.4.13"


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"mmlu": 3}', '{"mmlu": {"metrics": {"acc": "high"}, "settings": {}}}']
)
def test_a_broken_file_costs_no_report(text, folders):
    (folders[0] / "lm_eval.json").write_text(text)
    (run,) = read_runs(folders[:1])
    assert task_rows([run]) == []
    assert "lm-evaluation-harness" not in run_markdown(run)


def test_page_text_card_and_csv_have_them(folders):
    run, _ = runs = read_runs(folders)
    for page in (run_page(run), comparison_page(runs)):
        assert 'id="tasks"' in page
        assert 'href="#tasks"' in page
        assert ASKED in page
        assert "0.404 to 0.596" in page
        assert "<b>arc" not in page
    assert f"| mmlu | acc | 0.500 (0.404 to 0.596) | {ASKED} |" in run_markdown(run)
    assert f"| mmlu | acc | 0.500 (0.404 to 0.596) | {ASKED} |" in card(run)
    assert f"| mmlu | acc | 0.500 (0.404 to 0.596) | 0.750 (0.657 to 0.825) | {ASKED} |" in comparison_markdown(runs)
    lines = {line["metric"]: line for line in csv.DictReader(to_csv(runs[:1]).splitlines())}
    assert float(lines["lm-eval/mmlu/acc"]["low"]) == pytest.approx(0.4038, abs=1e-4)
    assert lines["lm-eval/mmlu/acc"]["step"] == str(run.last.step)


def test_a_run_without_says_nothing_of_them(tmp_path):
    (run,) = read_runs([good_run(tmp_path / "npo" / "1")])
    assert 'id="tasks"' not in run_page(run)
    assert "lm-eval/" not in to_csv([run])
