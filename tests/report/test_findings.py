"""What a report says first."""

from __future__ import annotations

import json
import math

import pytest
import yaml
from conftest import FORGET, RETAIN, make_tokenizer
from report_runs import bad_run, evaluation, good_run, make_run

from unlearun.data import UnlearningDataModule
from unlearun.records import Evaluation, summarise
from unlearun.report.card import card
from unlearun.report.contents import run_rows
from unlearun.report.facts import facts
from unlearun.report.findings import findings, findings_together
from unlearun.report.markdown import comparison_markdown
from unlearun.report.page import run_page
from unlearun.report.pictures import pictures_of_run, pictures_of_runs
from unlearun.report.reported_run import read_runs
from unlearun.report.values import lines


def of(*evaluations, folder, **config):
    return findings(read_runs([make_run(folder / "npo" / "1", *evaluations, losses=False, **config)])[0])


def test_of_a_good_run_nothing_is_said(tmp_path):
    assert findings(read_runs([good_run(tmp_path / "npo" / "1")])[0]) == []


def test_a_collapse_comes_first_and_over_unlearning_is_no_success(tmp_path):
    """Retain fell from about 0.95 to 0.05; forget rows, at 0.02 a token, look stranger than the holdout's 0.1."""
    found = findings(read_runs([bad_run(tmp_path / "npo" / "1")])[0])
    assert found[0].startswith("Collapsed: model_utility fell from")
    assert found[1].startswith("Over-unlearned: mia 0")
    assert "it is no success" in found[1]


def test_what_is_still_remembered_is_said(tmp_path):
    (found,) = of(evaluation(0, 0.95, 0.95), evaluation(5, 0.9, 0.95), folder=tmp_path)
    assert found.startswith("Still remembered: mia is 1.")


def test_where_nothing_was_forgotten_it_is_said_though_nothing_was_attacked(tmp_path):
    """Without a holdout set there is no mia that could tell."""
    start, end = evaluation(0, 0.95, 0.95), evaluation(5, 0.95, 0.95)
    for one in (start, end):
        del one.examples["holdout"]
        summarise(one)
    (found,) = of(start, end, folder=tmp_path)
    assert found.startswith("Not forgotten: nothing has clearly changed (forget_quality ")
    folder = tmp_path / "npo" / "1"
    page = run_page(read_runs([folder])[0])
    assert "Nothing to warn of" not in page


def test_a_model_that_never_knew_has_forgotten_nothing(tmp_path):
    start, end = evaluation(0, 0.05, 0.95), evaluation(5, 0.05, 0.95)
    for one in (start, end):
        one.summary["forget_quality"] = 0.995
    found = of(start, end, folder=tmp_path)
    assert found[0].startswith("Not known before: at step 0 forget_quality is 0.995")
    assert not any(one.startswith("Not forgotten") for one in found)


def test_holdout_rows_that_were_likelier_from_the_start_say_nothing(tmp_path):
    """Forget rows at 0.02 a token beside a holdout of 0.1, before and after: unlearning has not made them strange."""
    found = of(evaluation(0, 0.02, 0.95), evaluation(5, 0.02, 0.95), folder=tmp_path)
    assert not any(one.startswith("Over-unlearned") for one in found)
    assert any(one.startswith("Before unlearning mia") for one in found)


def test_other_rows_at_the_start_are_said_and_nothing_is_compared(tmp_path):
    start, end = evaluation(0, 0.95, 0.95), evaluation(5, 0.11, 0.05)
    start.fingerprint["sets"]["retain"]["digest"] = "another"
    found = of(start, end, folder=tmp_path)
    assert found == ["The start is not compared, for it was measured on other rows of retain."]


def test_rows_in_both_sets_and_cut_short_sets_are_said(tmp_path):
    start, end = evaluation(0, 0.95, 0.95), evaluation(5, 0.11, 0.9)
    for one in (start, end):
        for key in ("0", "1"):
            one.examples["retain"][key]["question"] = one.examples["forget"][key]["question"]
            one.examples["retain"][key]["answer"] = one.examples["forget"][key]["answer"]
        one.fingerprint["sets"]["holdout"]["partial"] = True
    cut, both = of(start, end, folder=tmp_path)
    assert cut == "holdout: only 30 rows were measured, for the run was cut short (limit_val_batches)."
    assert both.startswith("2 rows stand in both forget and retain")


def test_what_was_warned_of_when_the_data_were_read_stands_in_the_report(tmp_path):
    shared = tmp_path / "shared.json"
    shared.write_text(json.dumps([*FORGET, FORGET[0]]))
    data = UnlearningDataModule(str(shared), [*RETAIN, FORGET[1]], holdout=FORGET[:1], max_new_tokens=2)
    data.connect(make_tokenizer())
    data.setup("validate")
    cautions = data.describe()["cautions"]
    assert [caution.split(" ")[:4] for caution in cautions[:3]] == [
        ["forget:", "1", "of", str(len(FORGET) + 1)],
        ["1", "row", "stands", "in"],
        ["2", "rows", "of", "holdout"],
    ]
    assert any("longer than max_new_tokens=2" in caution for caution in cautions)
    assert str(tmp_path) not in " ".join(cautions)
    end = evaluation(5, 0.11, 0.9, cautions=cautions)
    found = of(evaluation(0, 0.95, 0.95), end, folder=tmp_path)
    assert len(found) == len(cautions)
    assert found[1] == "1 row stands in both forget and retain; remove them from one, for they pull both ways."


def test_a_reference_that_was_left_out_is_said(tmp_path):
    folder = good_run(tmp_path / "npo" / "1")
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text + "data:\n  retain_reference: gold/1\n")
    (found,) = findings(read_runs([folder])[0])
    assert found.startswith("Reference mismatch: the retain_reference is of other data or another model")
    last = evaluation(20, 0.12, 0.9, retain_reference="gold/1")
    last.write(folder / "eval" / "step=20.json")
    assert findings(read_runs([folder])[0]) == []


def test_what_is_no_number_is_said(tmp_path):
    end = evaluation(5, 0.11, 0.9)
    end.summary["forget/rouge"] = math.nan
    (found,) = of(evaluation(0, 0.95, 0.95), end, folder=tmp_path)
    assert found == "No number: forget/rouge; it is infinite, or some records hold none."


def choices(step: int, forget: float, kept: float) -> Evaluation:
    """What WMDP measures: shares of right answers, and no model_utility."""
    rows = {
        name: {str(i): {"choice_accuracy": float(i < round(40 * share))} for i in range(40)}
        for name, share in (("forget", forget), ("mmlu", kept))
    }
    sets = {name: {"rows": 40, "digest": name} for name in rows}
    found = Evaluation(step, examples=rows, fingerprint={"method": "RMU", "model": "org/tiny", "sets": sets})
    summarise(found)
    return found


def test_a_fall_to_guessing_is_a_collapse_of_what_should_be_kept(tmp_path):
    """From 0.6 to 0.275 of four choices: over the 0.25 of guessing under a tenth is left."""
    found = of(choices(0, 0.65, 0.6), choices(5, 0.25, 0.275), folder=tmp_path)
    assert found[0].startswith(
        "Collapsed: mmlu/choice_accuracy fell from 0.6 to 0.275, which over guessing is under 30%"
    )
    assert of(choices(0, 0.65, 0.6), choices(5, 0.25, 0.5), folder=tmp_path / "other") == []


def test_where_nothing_was_watched_nothing_is_said_to_have_held(tmp_path):
    """Who guesses from the start has nothing to lose."""
    for name, kept, said in (("guessed", 0.25, False), ("knew", 0.6, True)):
        run = make_run(tmp_path / name / "1", choices(0, 0.65, kept), choices(5, 0.25, kept), losses=False)
        page = run_page(read_runs([run])[0])
        assert "Nothing to warn of" in page
        assert ("Nothing has collapsed." in page) is said


def test_a_method_that_learns_is_not_blamed_for_it(tmp_path):
    start, end = (evaluation(step, level, 0.95, method="FineTune") for step, level in ((0, 0.05), (5, 0.95)))
    run = make_run(tmp_path / "finetune" / "1", start, end, losses=False)
    (run / "model").mkdir()
    (read,) = read_runs([run])
    assert findings(read) == []
    assert not any(line.change for line in lines(read) if line.name.startswith("forget"))
    assert {line.name: line.change for line in lines(read)}["retain/probability"] == "same"
    said = card(read)
    assert "after training with FineTune" in said
    assert "to forget" not in said.partition("## How")[0]
    assert "unlearning" not in yaml.safe_load(said.split("---")[1])["tags"]


def test_a_model_that_was_only_measured_has_unlearned_nothing(tmp_path):
    """Its forget rows look stranger than holdout, and nobody says that a method has gone too far."""
    (found,) = of(evaluation(0, 0.02, 0.95), folder=tmp_path)
    assert found.startswith("Forget rows look stranger than rows that the model never saw (mia 0")
    (remembered,) = (of(evaluation(0, 0.95, 0.95), folder=tmp_path / "other"),)
    assert remembered == []


@pytest.mark.parametrize(("column", "told"), [("probability", True), ("rougeL_f1_unstemmed", False)])
def test_answers_that_are_held_back_are_no_sign_of_forgetting(tmp_path, column, told):
    """They are where nothing else was measured, as in MUSE."""
    start, end = evaluation(0, 0.95, 0.95), evaluation(5, 0.95, 0.95)
    for one, said in ((start, 1.0), (end, 0.0)):
        one.examples = {
            "forget": {
                key: {column: row["probability"], "rougeL_f1_unstemmed": said}
                for key, row in one.examples["forget"].items()
            }
        }
        summarise(one)
    found = of(start, end, folder=tmp_path)
    assert any(one.startswith("Not forgotten") for one in found) is told


def test_what_became_better_known_needs_no_longer_training(tmp_path):
    start, end = evaluation(0, 0.5, 0.95), evaluation(5, 0.95, 0.95)
    for one in (start, end):
        del one.examples["holdout"]
        summarise(one)
    (found,) = of(start, end, folder=tmp_path)
    assert found.startswith("Not forgotten: the forget rows are better known than before (forget_quality ")
    assert "Train longer" not in found


def test_a_fit_that_did_not_measure_its_start_has_trained(tmp_path):
    run = make_run(tmp_path / "npo" / "1", evaluation(5, 0.5, 0.95), evaluation(10, 0.12, 0.9), losses=False)
    (read,) = read_runs([run])
    page = run_page(read)
    assert "NPO on org/tiny" in page
    assert "measured after" not in page
    assert [one.words[:17] for one in pictures_of_run(read)][:2] == ["Where the run wen", "Forget should fal"]


def test_what_was_measured_on_other_rows_is_not_drawn_as_one_way(tmp_path):
    start, end = evaluation(0, 0.95, 0.95), evaluation(10, 0.12, 0.9)
    start.fingerprint["sets"]["forget"]["digest"] = "another"
    (read,) = read_runs([make_run(tmp_path / "npo" / "1", start, end, losses=False)])
    assert not any(one.words.startswith("Where the run went") for one in pictures_of_run(read))


def test_every_run_is_held_against_every_other(tmp_path):
    """The first lacks what the others differ in."""
    runs = read_runs([good_run(tmp_path / name / "1") for name in "abc"])
    gold, one, other = (run.last.fingerprint for run in runs)
    del gold["sets"]["holdout"]
    other["sets"]["holdout"] = {**other["sets"]["holdout"], "digest": "another"}
    one["retain_reference"], other["retain_reference"] = "retain90", "retain99"
    found = findings_together(runs)
    assert "c/1 was measured on other rows of holdout than b/1: not comparable." in found
    assert "c/1 was compared with another retain model (retain99) than b/1." in found


def test_values_of_other_things_are_on_no_front(tmp_path):
    runs = read_runs([good_run(tmp_path / name / "1") for name in "abc"])
    assert [row.front for row in run_rows(runs, [])] == [True] * 3
    assert "Beaten by no other" in comparison_markdown(runs)
    runs[1].last.parts["model_utility"] = ["retain/probability"]
    assert [row.front for row in run_rows(runs, [])] == [False] * 3
    assert "Beaten by no other" not in comparison_markdown(runs)
    assert "None is marked as best" in pictures_of_runs(runs)[0].words
    runs[1].last.parts["model_utility"] = runs[0].last.parts["model_utility"]
    runs[2].last.fingerprint["sets"]["retain"]["digest"] = "another"
    assert not any(row.front for row in run_rows(runs, []))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda e: e.fingerprint["sets"]["retain"].update(digest="x"), "was measured on other rows of retain than a/1"),
        (lambda e: e.fingerprint["sets"].pop("holdout"), "were not measured on the same sets: one lacks holdout"),
        (lambda e: e.fingerprint.update(template={"prompt": "x"}), "was asked in another way"),
        (lambda e: e.fingerprint.update(tokenizer="x"), "was asked with another tokenizer"),
        (lambda e: e.parts["model_utility"].pop(), "model_utility is made of other parts in some runs"),
    ],
)
def test_what_keeps_runs_from_being_compared_is_said(change, said, tmp_path):
    first, second = good_run(tmp_path / "a" / "1"), tmp_path / "b" / "1"
    start, end = evaluation(0, 0.95, 0.95), evaluation(20, 0.12, 0.9)
    assert findings_together(read_runs([first, make_run(second, start, end)])) == []
    change(end)
    end.write(second / "eval" / "step=20.json")
    found, *_ = findings_together(read_runs([first, second]))  # what is wrong with one of them alone comes behind
    assert said in found


def test_what_is_wrong_with_several_runs_is_said_once(tmp_path):
    runs = read_runs([bad_run(tmp_path / name / "1") for name in "ab"])
    found = findings_together(runs)
    assert [one.partition(":")[0] for one in found] == ["a/1, b/1"] * len(findings(runs[0]))


def test_a_run_that_has_left_no_model_is_not_finished(tmp_path):
    run = good_run(tmp_path / "npo" / "1")
    (run / "checkpoints").mkdir()
    assert findings(read_runs([run])[0])[0].startswith("Not finished, or its model was taken away: the last evaluation")
    (run / "model").mkdir()
    assert findings(read_runs([run])[0]) == []


def test_sets_that_were_asked_otherwise_are_said_and_shown(tmp_path):
    one, other = read_runs([good_run(tmp_path / "npo" / "1"), good_run(tmp_path / "npo" / "2")])
    other.last.fingerprint["sets"]["forget"] |= {"template": {"prefill": "So"}, "generation": {"max_new_tokens": 3}}
    (said,) = findings_together([one, other])
    assert said.startswith("npo/2 was asked in another way than npo/1 (template, shots, tokens) on forget:")
    assert dict(facts(other))["forget was asked with"] == "prefill: So, max_new_tokens: 3"


def test_a_value_that_is_no_number_is_on_no_front(tmp_path):
    runs = read_runs([good_run(tmp_path / "npo" / str(number)) for number in (1, 2, 3)])
    runs[0].last.summary |= {"forget_quality": math.nan, "model_utility": 0.99}
    assert [row.front for row in run_rows(runs, [])] == [False, True, True]
