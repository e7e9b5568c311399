"""A retain reference that cannot belong is an error that says why."""

from __future__ import annotations

import json

import pytest

from unlearun.errors import UnlearunError
from unlearun.records import Evaluation, check_fit, offers, read_reference

TEMPLATE = {"prompt": "Question: {question}\nAnswer: ", "chat": None, "system": None, "max_length": 512}


def ours(rows: int = 4, digest: str | None = "ab12", **facts: object) -> Evaluation:
    sets = {name: {"role": name, "rows": rows, "digest": digest} for name in ("forget", "holdout")}
    examples = {n: {str(i): {"truth_ratio": 1.0, "answer": f"{n} {i}"} for i in range(rows)} for n in sets}
    known = {"sets": sets, "template": TEMPLATE, "tokenizer": "77", **facts}
    return Evaluation(0, examples=examples, fingerprint=known)


def published(answers: list[str | None], first: int = 0, **record: float) -> Evaluation:
    rows = {str(first + i): {"truth_ratio": 1.0, **record, "answer": a} for i, a in enumerate(answers)}
    sets = {"forget": {"role": "forget", "rows": len(rows)}}
    return Evaluation(0, examples={"forget": rows}, fingerprint={"kind": "tofu", "sets": sets})


def problems(evaluation: Evaluation, reference: Evaluation) -> list[str]:
    with pytest.raises(UnlearunError) as error:
        check_fit(evaluation, reference, "retain.json")
    first, *lines = str(error.value).split("\n")
    assert first.startswith("retain.json cannot be the retain reference (evaluate the retain model on the same rows")
    return [line.strip() for line in lines]


def test_the_same_rows_fit_whatever_the_model():
    check_fit(ours(model="target"), ours(model="gold", method="GradDiff"), "retain.json")


def test_the_fingerprint_alone_is_enough():
    evaluation = ours()
    evaluation.examples = {}
    check_fit(evaluation, ours(), "retain.json")
    assert problems(evaluation, ours(rows=5)) == [
        "the reference has 5 forget rows, this evaluation 4",
        "the reference has 5 holdout rows, this evaluation 4",
    ]


def test_row_counts_of_records_without_a_fingerprint_are_counted():
    evaluation, reference = ours(rows=40), ours(rows=400)
    evaluation.fingerprint = reference.fingerprint = {}
    assert problems(evaluation, reference)[0] == "the reference has 400 forget rows, this evaluation 40"


def test_another_split_of_as_many_rows():
    found = problems(ours(), ours(digest="cd34"))
    assert found[0] == "the forget rows of the reference are others, or in other order (digest cd34, here ab12)"
    assert len(found) == 2


@pytest.mark.parametrize("other", ["tokenizer", "template"])
def test_another_tokenizer_or_template(other):
    found = problems(ours(), ours(**{other: "88" if other == "tokenizer" else {**TEMPLATE, "system": "Be brief."}}))
    assert found == [
        {
            "tokenizer": "the reference was made with another tokenizer",
            "template": "the template's system is 'Be brief.' in the reference, None here",
        }[other]
    ]


@pytest.mark.parametrize("name", ["forget", "holdout"])
def test_a_reference_that_was_cut_short(name):
    reference = ours()
    reference.fingerprint["sets"][name].update(rows=2, partial=True)
    reference.examples[name] = {key: reference.examples[name][key] for key in "01"}
    said = f"the reference was cut short after 2 {name} rows (evaluate all: leave out limit_val_batches)"
    assert problems(ours(), reference) == [said]
    reference.fingerprint["sets"][name]["rows"] = 4  # whatever else it says
    assert len(problems(ours(), reference)) == 1


@pytest.mark.parametrize("name", ["forget", "holdout"])
def test_an_evaluation_that_was_cut_short(name):
    evaluation = ours()
    evaluation.fingerprint["sets"][name].update(rows=2, partial=True)
    said = f"this evaluation was cut short after 2 {name} rows (evaluate all: leave out limit_val_batches)"
    assert problems(evaluation, ours()) == [said]
    both = ours()
    both.fingerprint = evaluation.fingerprint
    assert len(problems(evaluation, both)) == 2


def test_fewer_examples_than_rows():
    reference = ours()
    del reference.examples["holdout"]["3"]
    assert problems(ours(), reference) == [
        "the reference has only 3 examples of the 4 holdout rows that its fingerprint names"
    ]
    assert problems(reference, ours())[0].startswith("this evaluation has only 3 examples of the 4 holdout rows")


def test_sets_that_are_not_compared_may_be_partial_and_one_without_examples_was_not_measured():
    reference = ours()
    reference.fingerprint["sets"]["retain"] = {"role": "retain", "rows": 1, "partial": True}
    reference.examples["holdout"] = {}
    reference.examples["retain"] = {"0": {"probability": 1.0}}
    check_fit(ours(), reference, "retain.json")
    reference.fingerprint["sets"]["holdout"].update(rows=0, partial=True)
    check_fit(ours(), reference, "retain.json")
    reference.fingerprint["sets"]["forget"]["partial"] = False
    check_fit(ours(), reference, "retain.json")


def test_facts_are_those_of_the_set_whose_examples_are_read():
    reference = ours()
    reference.fingerprint["sets"] = {"forget_b": {"rows": 9, "partial": True}, **reference.fingerprint["sets"]}
    reference.fingerprint["sets"]["forget_c"] = reference.fingerprint["sets"].pop("forget")
    reference.examples["forget_c"] = reference.examples.pop("forget")
    check_fit(ours(), reference, "retain.json")


def test_what_a_reference_offers():
    reference = ours()
    assert offers(reference) == {"ks_forget_quality"}
    for rows in reference.examples.values():
        for record in rows.values():
            record.update(logprob=-1.0, tokens=2, mia_min_k=-1.0)
    assert offers(reference) == {"ks_forget_quality", "privleak", "mia_reference"}
    for record in reference.examples["forget"].values():
        del record["truth_ratio"]
    assert offers(reference) == {"privleak", "mia_reference"}
    del reference.examples["holdout"]["2"]["tokens"]
    assert offers(reference) == {"privleak"}
    del reference.examples["holdout"]
    assert offers(reference) == frozenset()
    assert offers(Evaluation(0, given={"mia_min_k": 0.5})) == {"privleak"}
    assert offers(Evaluation(0)) == frozenset()


def test_all_problems_come_at_once():
    reference = ours(rows=5, tokenizer="88", template={**TEMPLATE, "max_length": 256, "prompt": "{question}"})
    assert len(problems(ours(), reference)) == 5


def test_a_published_reference_fits_by_its_answers():
    answers = [f"FORGET  {i}" for i in range(4)]  # capitals and spaces are a matter of decoding
    check_fit(ours(), published(answers), "retain.json")
    check_fit(ours(), published([*answers[:2], "forget two", None]), "retain.json")
    check_fit(ours(), published([None] * 4), "retain.json")


def test_published_answers_of_another_split():
    found = problems(ours(), published(["forget 0", "b", "c", "d"]))
    assert found == ["the reference has other forget answers: 1 of its 4 stand in this evaluation"]


def test_no_shared_example_ids():
    found = problems(ours(), published([None] * 4, first=100))
    assert found == ["the reference has none of this evaluation's forget example ids"]


def test_a_set_that_only_one_side_has_is_no_problem():
    reference = ours()
    del reference.fingerprint["sets"]["holdout"], reference.examples["holdout"]
    check_fit(ours(), reference, "retain.json")
    check_fit(ours(), Evaluation(0, given={"mia_min_k": 0.5}), "retain.json")


def test_a_reference_with_nothing_to_compare_with(tmp_path):
    useless = ours()
    for record in useless.examples["forget"].values():
        del record["truth_ratio"]
    assert problems(ours(), useless)[0].startswith("the reference has no truth ratios or log-probabilities")
    (tmp_path / "log.json").write_text(json.dumps({"eval_log.json": {"avg_gt_loss": {"0": 1.0}}}))
    with pytest.raises(
        UnlearunError, match=r"log.json cannot be a retain reference: 1 problem\n  the reference has no"
    ):
        read_reference(tmp_path / "log.json")


@pytest.mark.parametrize(
    "log",
    [
        {"mia_min_k": {"agg_value": 0.5}},
        {"forget_truth_ratio": {"value_by_index": {"0": {"score": 1.0}}}},
        {"eval_log_forget.json": {"avg_paraphrased_loss": {"0": 1.0}, "average_perturb_loss": {"0": [1.0]}}},
    ],
)
def test_one_usable_thing_is_enough(tmp_path, log):
    (tmp_path / "log.json").write_text(json.dumps(log))
    assert read_reference(str(tmp_path / "log.json")).fingerprint["kind"] in ("tofu", "open-unlearning")


def test_min_k_of_both_sides_is_usable():
    reference = ours()
    for name in ("forget", "holdout"):
        reference.examples[name] = {key: {"mia_min_k": -1.0} for key in reference.examples[name]}
    check_fit(ours(), reference, "retain.json")
