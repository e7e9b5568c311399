"""Published records, by hand: losses are logarithms, so that probabilities are plain fractions."""

from __future__ import annotations

import json
import math

import pytest

from unlearun.errors import UnlearunError
from unlearun.records import Evaluation, read_records, summarise
from unlearun.records.stated import likelihoods

LN2, LN4, LN8 = math.log(2), math.log(4), math.log(8)


def tofu_log() -> dict:
    """Forget: p 1/2 and 1/4, paraphrase 1/2 and 1/8, wrong answers 1 and 1/4, and 1/2 and 1/2."""
    forget = {
        "avg_gt_loss": {"0": LN2, "1": LN4},
        "gt_loss": {"0": 3 * LN2, "1": LN4},
        "num_token_gt": {"0": 3, "1": 1},
        "avg_paraphrased_loss": {"0": LN2, "1": LN8},
        "average_perturb_loss": {"0": [0.0, LN4], "1": [LN2, LN2]},
        "rouge1_recall": {"0": 1.0, "1": 0.5},
        "rougeL_recall": {"0": 0.75, "1": 0.25},
        "generated_text": {"0": ["Who?", "Ann it is", "Ann"], "1": ["Where?", "here", "there"]},
    }
    # p 1/2 beside options of 1/4 and 1/4; TOFU writes the answer once more as its own paraphrase.
    options = {
        "avg_gt_loss": {"0": LN2},
        "avg_paraphrased_loss": {"0": LN2},
        "average_perturb_loss": {"0": [LN4, LN4]},
        "rougeL_recall": {"0": 1.0},
    }
    retain = {
        "avg_gt_loss": {"5": LN2},
        "avg_paraphrased_loss": {"5": LN2},
        "average_perturb_loss": {"5": [LN4, LN8 + LN2]},  # 1/4 and 1/16: 1/8
        "rougeL_recall": {"5": 0.5},
    }
    names = ("eval_log_forget.json", "eval_log.json", "eval_real_author_wo_options.json")
    return dict(zip(names, (forget, retain, options), strict=True))


def by_index(**fields: dict) -> dict:
    indices = dict.fromkeys(index for values in fields.values() for index in values)
    return {index: {field: values[index] for field, values in fields.items() if index in values} for index in indices}


def open_log() -> dict:
    """What TOFU's log above says, in OpenUnlearning's words."""
    log = tofu_log()
    forget, retain, options = (log[name] for name in log)
    rouge = {
        "rouge1_recall": forget["rouge1_recall"],
        "rougeL_recall": forget["rougeL_recall"],
        "input": {"0": "Who?", "1": "Where?"},
        "ground_truth": {"0": "Ann", "1": "there"},
        "generation": {"0": "Ann it is", "1": "here"},
    }
    values = {
        "forget_Q_A_Prob": by_index(avg_loss=forget["avg_gt_loss"]),
        "forget_Q_A_PARA_Prob": by_index(avg_loss=forget["avg_paraphrased_loss"]),
        "forget_Q_A_PERT_Prob": by_index(avg_loss=forget["average_perturb_loss"]),
        "forget_Q_A_ROUGE": by_index(**rouge),
        "retain_Q_A_Prob": by_index(avg_loss=retain["avg_gt_loss"]),
        "retain_Q_A_PARA_Prob": by_index(avg_loss=retain["avg_paraphrased_loss"]),
        "retain_Q_A_PERT_Prob": by_index(avg_loss=retain["average_perturb_loss"]),
        "retain_Q_A_ROUGE": by_index(rougeL_recall=retain["rougeL_recall"]),
        "ra_Q_A_Prob": by_index(avg_loss=options["avg_gt_loss"]),
        "ra_Q_A_PERT_Prob": by_index(avg_loss=options["average_perturb_loss"]),
        "ra_Q_A_ROUGE": by_index(rougeL_recall=options["rougeL_recall"]),
    }
    whole = {metric: {"agg_value": 0.123, "value_by_index": rows} for metric, rows in values.items()}
    return {**whole, "model_utility": {"agg_value": 0.123}, "forget_quality": {"agg_value": None}}


@pytest.fixture
def read(tmp_path):
    def write_and_read(log: object) -> Evaluation:
        (tmp_path / "log.json").write_text(json.dumps(log))
        return read_records(tmp_path / "log.json")

    return write_and_read


@pytest.mark.parametrize(("log", "kind"), [(tofu_log(), "tofu"), (open_log(), "open-unlearning")])
def test_every_column_by_hand(read, log, kind):
    evaluation = read(log)
    columns = ("probability", "paraphrase_probability", "truth_ratio", "rouge1_recall", "rougeL_recall")
    forget = evaluation.examples["forget"]
    # R = √(1 · 1/4) / (1/2) = 1, not the arithmetic (1 + 1/4) / 2 / (1/2) = 1.25; and (1/2) / (1/8) = 4.
    assert [forget["0"][column] for column in columns] == pytest.approx([0.5, 0.5, 1.0, 1.0, 0.75])
    assert [forget["1"][column] for column in columns] == pytest.approx([0.25, 0.125, 4.0, 0.5, 0.25])
    assert {k: forget["0"][k] for k in ("question", "answer", "generation")} == {
        "question": "Who?",
        "answer": "Ann",
        "generation": "Ann it is",
    }
    # (1/2) / (1/2 + 1/4 + 1/4), and R = (1/4) / (1/2).
    assert evaluation.examples["real_authors"]["0"] == pytest.approx(
        {"probability": 0.5, "truth_ratio": 0.5, "rougeL_recall": 1.0}
    )
    assert evaluation.examples["retain"]["5"]["truth_ratio"] == pytest.approx(0.25)
    assert evaluation.fingerprint == {
        "kind": kind,
        "sets": {
            "forget": {"role": "forget", "rows": 2},
            "retain": {"role": "retain", "rows": 1},
            "real_authors": {"role": "utility", "rows": 1},
        },
    }


@pytest.mark.parametrize("log", [tofu_log(), open_log()])
def test_aggregates_are_computed_and_not_taken_over(read, log):
    """retain: p 1/2, rouge 1/2, 1 - R 3/4; real authors: 1/2, 1, 1/2. 6 / (2 + 2 + 4/3 + 2 + 1 + 2) = 18/31."""
    evaluation = read(log)
    summarise(evaluation)
    assert evaluation.summary["model_utility"] == pytest.approx(18 / 31)
    assert len(evaluation.parts["model_utility"]) == 6
    assert evaluation.summary["forget/truth_ratio"] == pytest.approx((1 + 0.25) / 2)
    # 1 - (1/2 + 1/8) / 2 = 11/16; 1 - (1/2 + 1/5) / 2 = 13/20. 2 / (16/11 + 20/13).
    assert evaluation.summary["forget_quality"] == pytest.approx(2 / (16 / 11 + 20 / 13))
    assert evaluation.parts["forget_quality"] == ["1-paraphrase_probability", "1-choice"]


def test_perplexity_needs_token_counts(read):
    """exp((3 ln 2 + ln 4) / 4) where the counts are given; no mean over tokens can be made of means an answer."""
    counted, uncounted = read(tofu_log()), read(open_log())
    for evaluation in (counted, uncounted):
        summarise(evaluation)
    assert counted.summary["forget/perplexity"] == pytest.approx(2 ** (5 / 4))
    assert not [name for name in uncounted.summary if "perplexity" in name]
    assert "retain/perplexity" not in counted.summary


def test_stated_truth_ratios_and_normalised_probabilities_go_before_computed_ones(read):
    log = open_log()
    log["forget_truth_ratio"] = {"agg_value": 0.1, "value_by_index": {"0": {"score": 0.9}}}
    log["ra_Q_A_Prob_normalised"] = {"agg_value": 0.1, "value_by_index": {"0": {"prob": 0.7}}}
    evaluation = read(log)
    assert evaluation.examples["forget"]["0"]["truth_ratio"] == 0.9
    assert evaluation.examples["forget"]["1"]["truth_ratio"] == pytest.approx(4.0)
    assert evaluation.examples["real_authors"]["0"]["probability"] == 0.7


def test_memorisation_and_metric_names_in_either_case(read):
    scores = {"agg_value": 0.5, "value_by_index": {"0": {"score": 0.25}}}
    log = dict.fromkeys(("exact_memorization", "extraction_strength", "retain_Truth_Ratio"), scores)
    evaluation = read(log)
    assert evaluation.examples == {
        "forget": {"0": {"exact_memorization": 0.25, "extraction_strength": 0.25}},
        "retain": {"0": {"truth_ratio": 0.25}},
    }


def test_areas_of_attacks_are_given(read):
    attack = {"forget": {"agg_value": 2.0}, "holdout": {"agg_value": 3.0}, "auc": 0.75, "agg_value": 0.75}
    log = {"mia_loss": attack, "mia_min_k": {"auc": 0.6}, "mia_gradnorm": {"agg_value": 0.4}, "mia_zlib": {"auc": None}}
    evaluation = read(log)
    assert evaluation.given == {"mia": 0.75, "mia_min_k": 0.6, "mia_grad_norm": 0.4}
    summarise(evaluation, reference=read({"mia_min_k": {"auc": 0.5}}))
    assert evaluation.summary == {**evaluation.given, "privleak": pytest.approx(-20.0)}  # (0.4 - 0.5) / 0.5
    assert evaluation.intervals == {}


def test_a_metric_cut_down_to_its_value_is_given_and_counts_in_aggregates(read):
    """4/5 given and 1/2 computed: 2 / (5/4 + 2) = 8/13, without an interval. A plain ra_Q_A_Prob is not ours."""
    log = {
        "retain_Q_A_Prob": {"agg_value": 0.8},
        "retain_Q_A_ROUGE": {"agg_value": 0.1, "value_by_index": {"0": {"rougeL_recall": 0.5}}},
        "ra_Q_A_Prob": {"agg_value": 0.3},
        "extraction_strength": {"agg_value": 0.25, "value_by_index": None},
    }
    evaluation = read(log)
    summarise(evaluation)
    assert evaluation.given == {"retain/probability": 0.8, "forget/extraction_strength": 0.25}
    assert evaluation.summary["model_utility"] == pytest.approx(8 / 13)
    assert evaluation.summary["forget_quality"] == 0.75
    assert "model_utility" not in evaluation.intervals


def test_what_is_null_is_left_out_and_still_a_row(read):
    log = open_log()
    log["forget_Q_A_Prob"]["value_by_index"]["2"] = None
    log["forget_Q_A_Prob"]["value_by_index"]["0"]["avg_loss"] = None
    log["forget_Q_A_PERT_Prob"]["value_by_index"]["1"]["avg_loss"] = [LN2, None]
    evaluation = read(log)
    assert evaluation.fingerprint["sets"]["forget"]["rows"] == 3
    assert evaluation.examples["forget"]["2"] == {}
    assert "probability" not in evaluation.examples["forget"]["0"]
    assert "truth_ratio" not in evaluation.examples["forget"]["1"]


@pytest.mark.parametrize("file", list(tofu_log()))
def test_a_part_of_a_tofu_log_gives_what_it_can(read, file):
    evaluation = read({file: tofu_log()[file]})
    assert len(evaluation.examples) == 1
    assert read({file: {"rougeL_recall": {"0": 1.0}}}).fingerprint["sets"]


def test_options_without_their_losses_give_no_probability():
    assert likelihoods({"answer_loss": [1.0]}, options=True) == {}
    assert likelihoods({"answer_loss": [0.0]}, options=False) == {"probability": 1.0}


def test_losses_beyond_a_double_stay_finite():
    columns = likelihoods({"answer_loss": [5000.0], "paraphrase_loss": [5000.0], "wrong_loss": [1.0]}, options=False)
    assert columns["probability"] == 0.0
    assert columns["truth_ratio"] > 1e300
    assert math.isfinite(columns["truth_ratio"])


@pytest.mark.parametrize(
    ("log", "message"),
    [
        ([1, 2], "no records of a known kind"),
        ({"color": "red"}, "no records of a known kind"),
        ({"model_utility": {"agg_value": 0.5}}, "no records of a known kind"),
        ({"eval_log_forget.json": 3}, "eval_log_forget.json is 3; expected a mapping"),
        ({"eval_log_forget.json": {"avg_gt_loss": [1.0]}}, r"avg_gt_loss is \[1.0\]; expected a mapping"),
        ({"eval_log.json": {"avg_gt_loss": {"4": "low"}}}, "eval_log.json: avg_gt_loss: 4 is 'low'; expected a number"),
        ({"eval_log.json": {"gt_loss": {"4": "low"}}}, "eval_log.json: gt_loss: 4 is 'low'; expected a number"),
        ({"eval_log.json": {"generated_text": {"4": ["a", "b"]}}}, "generated_text: 4 is no list of"),
        ({"eval_log.json": {"generated_text": {"4": ["a", "b", 3]}}}, "generated_text: 4 is 3; expected a text"),
        ({"forget_Q_A_Prob": 0.5}, "forget_Q_A_Prob is 0.5; expected a mapping"),
        ({"forget_Q_A_Prob": {"value_by_index": [1]}}, r"value_by_index is \[1\]; expected a mapping"),
        ({"forget_Q_A_Prob": {"value_by_index": {"0": 0.5}}}, "value_by_index: 0 is 0.5; expected a mapping"),
        ({"forget_Q_A_Prob": {"value_by_index": {"0": {"avg_loss": {}}}}}, "0: avg_loss is {}; expected a number"),
        ({"mia_min_k": {"agg_value": "half"}}, "mia_min_k: agg_value is 'half'; expected a number"),
        ({"mia_min_k": {"agg_value": 10**400}}, "mia_min_k: agg_value is 1000.*expected a number that a double holds"),
        ({"eval_log.json": {"avg_gt_loss": {"4": 10**400}}}, "avg_gt_loss: 4 is 1000.*that a double holds"),
        ({"eval_log.json": {"avg_gt_loss": {"4": -1000}}}, "avg_gt_loss: 4 is -1000; expected a loss"),
        ({"forget_Q_A_Prob": {"value_by_index": {"0": {"avg_loss": -1000}}}}, "avg_loss is -1000; expected a loss"),
        ({"forget_Q_A_PERT_Prob": {"value_by_index": {"0": {"avg_loss": [1.0, -1e300]}}}}, "avg_loss is -1e.300; exp"),
    ],
)
def test_broken_files_are_named_with_the_key(read, log, message):
    with pytest.raises(UnlearunError, match=message) as error:
        read(log)
    assert "log.json" in str(error.value)


def test_a_loss_may_round_to_less_than_0(read):
    evaluation = read({"eval_log.json": {"avg_gt_loss": {"0": -1e-3, "1": -0.0}}})
    assert evaluation.examples["retain"]["0"]["probability"] == pytest.approx(1.001, abs=1e-5)
    assert evaluation.examples["retain"]["1"]["probability"] == 1.0


@pytest.mark.parametrize("name", ["x" * 5000, "x\0y", "x\ud800"])
def test_a_name_that_no_file_has(name):
    with pytest.raises(UnlearunError, match="cannot be read"):
        read_records(name)


def test_a_run_folder_means_its_last_evaluation(tmp_path):
    for step in (0, 9, 10):
        Evaluation(step).write(tmp_path / "eval" / f"step={step}.json")
    (tmp_path / "eval" / "step=last.json").write_text("{}")
    assert read_records(tmp_path).step == 10
    assert read_records(str(tmp_path / "eval" / "step=9.json")).step == 9
    with pytest.raises(UnlearunError, match="holds no eval/step=N"):
        read_records(tmp_path / "eval")
