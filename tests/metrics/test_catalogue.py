"""Which metrics are chosen, and what is said when one cannot be."""

from __future__ import annotations

import pytest
from metrics.harness import AnswerLength, WordCount

from unlearun.errors import UnlearunError
from unlearun.metrics import CATALOGUE, OPT_IN, EvaluationSuite, SetTraits
from unlearun.metrics.catalogue import choose, make_metrics
from unlearun.records import AGGREGATES, NEED_REFERENCE

ALL = SetTraits(paraphrase=True, wrong=True, short=True)
EVERYTHING = {"forget": ALL, "retain": ALL, "holdout": ALL, "facts": ALL}
BARE = {name: SetTraits() for name in EVERYTHING}
NEED_NOTHING = [
    "perplexity",
    "probability",
    "exact_memorization",
    "extraction_strength",
    "verbatim_memorization",
    "rouge",
]


def without(sets, name):
    return {title: traits for title, traits in sets.items() if title != name}


# ---- what data allow --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sets", "reference", "chosen"),
    [
        (EVERYTHING, NEED_REFERENCE, set(CATALOGUE) - set(OPT_IN)),
        (EVERYTHING, (), set(CATALOGUE) - set(OPT_IN) - {"ks_forget_quality", "privleak", "mia_reference"}),
        ({"forget": SetTraits()}, NEED_REFERENCE, {*NEED_NOTHING, "forget_quality"}),
        (
            {"forget": ALL},
            NEED_REFERENCE,
            {*NEED_NOTHING, "forget_quality", "truth_ratio", "short_answer", "ks_forget_quality"},
        ),
        ({"retain": SetTraits()}, NEED_REFERENCE, {*NEED_NOTHING, "model_utility"}),
        ({"facts": SetTraits(wrong=True)}, (), {*NEED_NOTHING, "model_utility", "truth_ratio"}),
        ({"holdout": SetTraits(short=True)}, (), {*NEED_NOTHING, "short_answer"}),
    ],
)
def test_without_a_choice_all_that_the_data_allow(sets, reference, chosen):
    """And nothing that needs a model or a pass of its own."""
    assert set(choose(None, sets, reference)) == chosen
    assert EvaluationSuite(sets).choices == choose(None, sets)


def test_every_aggregate_has_a_name_to_choose_it_by():
    assert set(AGGREGATES) <= set(CATALOGUE)


@pytest.mark.parametrize(
    ("name", "sets", "reference", "remedy"),
    [
        ("mia", without(BARE, "holdout"), NEED_REFERENCE, "holdout"),
        ("mia_grad_norm", without(BARE, "holdout"), NEED_REFERENCE, "holdout"),
        ("mia_zlib", without(BARE, "forget"), NEED_REFERENCE, "forget"),
        ("privleak", without(BARE, "holdout"), NEED_REFERENCE, "holdout"),
        ("privleak", BARE, (), "retain_reference"),
        ("mia_reference", BARE, (), "retain_reference"),
        ("ks_forget_quality", EVERYTHING, (), "retain_reference"),
        ("ks_forget_quality", {**EVERYTHING, "forget": SetTraits()}, NEED_REFERENCE, "perturbed_answer"),
        ("truth_ratio", BARE, NEED_REFERENCE, "perturbed_answer"),
        ("short_answer", BARE, NEED_REFERENCE, "short_answer"),
        ("forget_quality", without(BARE, "forget"), NEED_REFERENCE, "forget"),
        ("model_utility", {"forget": ALL, "holdout": ALL}, NEED_REFERENCE, "retain"),
    ],
)
def test_what_a_metric_lacks_is_named(name, sets, reference, remedy):
    with pytest.raises(UnlearunError, match=rf"^{name} .*\badd\b.*\b{remedy}\b"):
        choose([name], sets, reference)
    assert name not in choose(None, sets, reference)


def test_what_several_lack_is_said_at_once():
    with pytest.raises(UnlearunError) as error:
        choose(["probability", "mia", "short_answer", "probabilty"], {"forget": SetTraits()})
    for part in ("mia compares", "holdout", "short_answer needs", "Did you mean 'probability'?"):
        assert part in str(error.value)
    assert "probability compares" not in str(error.value)


@pytest.mark.parametrize("name", ["forget_quality", "model_utility"])
@pytest.mark.parametrize("traits", [SetTraits(), SetTraits(paraphrase=True), SetTraits(wrong=True), ALL])
def test_aggregates_never_fail_for_a_missing_key(name, traits):
    sets = dict.fromkeys(EVERYTHING, traits)
    assert choose([name], sets) == [name]
    assert make_metrics([name], "forget" if name == "forget_quality" else "facts", traits)


@pytest.mark.parametrize(
    ("misspelt", "right"),
    [("probabilty", "probability"), ("ROUGE", "rouge"), ("mia_mink", "mia_min_k"), ("ks_quality", "ks_forget_quality")],
)
def test_a_misspelt_name_gets_a_hint(misspelt, right):
    with pytest.raises(UnlearunError, match=f"no metric '{misspelt}'.*Did you mean '{right}'.*dotted path"):
        choose([misspelt], EVERYTHING)


def test_all_in_a_list_stands_for_what_null_means():
    every = choose(None, EVERYTHING)
    assert choose(["all"], EVERYTHING) == every
    assert choose(["all", "choice_accuracy", "probability"], EVERYTHING) == [*every, "choice_accuracy"]
    assert choose(["all"], {"facts": SetTraits()}) == choose(None, {"facts": SetTraits()})


def test_a_name_that_resembles_nothing_gets_the_list():
    with pytest.raises(UnlearunError, match=r"perplexity, .*model_utility, .*privleak") as error:
        choose(["zzz"], EVERYTHING)
    assert "Did you mean" not in str(error.value)


# ---- what is made -----------------------------------------------------------------------------------------------


def columns(names, set_name, traits=ALL):
    return {column for metric in make_metrics(names, set_name, traits) for column in metric.columns}


@pytest.mark.parametrize(
    ("name", "set_name", "expected"),
    [
        ("mia_zlib", "forget", {"mia_zlib"}),
        ("mia_zlib", "holdout", {"mia_zlib"}),
        ("mia_zlib", "retain", set()),
        ("mia_reference", "holdout", {"perplexity", "logprob", "tokens"}),
        ("privleak", "forget", {"mia_min_k"}),
        ("ks_forget_quality", "forget", {"truth_ratio"}),
        ("ks_forget_quality", "retain", set()),
        ("forget_quality", "retain", set()),
        ("model_utility", "forget", set()),
        ("model_utility", "holdout", set()),
        (
            "forget_quality",
            "forget",
            {"exact_memorization", "extraction_strength", "probability", "paraphrase_probability", "truth_ratio"},
        ),
    ],
)
def test_a_set_has_what_its_part_asks_for(name, set_name, expected):
    assert columns([name], set_name) == expected


def test_traits_say_what_a_row_of_other_answers_is_read_for():
    """Without paraphrases and wrong answers there is nothing to measure on them."""
    assert columns(["truth_ratio", "short_answer"], "forget", SetTraits()) == set()
    assert "paraphrase_probability" not in columns(["forget_quality"], "forget", SetTraits(wrong=True))


def test_a_column_is_measured_once_whoever_asks():
    names = [name for name in CATALOGUE if name not in OPT_IN]
    for set_name in EVERYTHING:
        made = [column for metric in make_metrics(names, set_name, ALL) for column in metric.columns]
        assert len(made) == len(set(made))


@pytest.mark.parametrize(("set_name", "forget"), [("forget", True), ("forget_other", True), ("retain", False)])
def test_truth_ratios_are_valued_by_the_part_of_the_set(set_name, forget):
    (metric,) = make_metrics(["truth_ratio"], set_name, ALL)
    assert metric.forget is forget


# ---- a user's own -----------------------------------------------------------------------------------------------


def test_by_dotted_path_and_with_arguments():
    path = "metrics.harness.AnswerLength"
    choices = [path, {"class_path": "metrics.harness.WordCount"}]
    assert [type(metric) for metric in make_metrics(choose(choices, BARE), "facts", SetTraits())] == [
        AnswerLength,
        WordCount,
    ]
    (metric,) = make_metrics([{"class_path": path, "init_args": {"times": 2.0}}], "facts", SetTraits())
    assert metric.times == 2


def test_a_choice_that_is_made_twice_is_made_once():
    path = {"class_path": "metrics.harness.AnswerLength", "init_args": {"times": 2.0}}
    assert choose(["rouge", path, "rouge", dict(path)], BARE) == ["rouge", path]


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("metrics.harness.AnswerLenght", "AnswerLenght"),
        ("no.such.module", "no.such.module cannot be made"),
        ("metrics.harness.NoMetric", "is no ExampleMetric; derive it from"),
        ({"class_path": "metrics.harness.AnswerLength", "init_args": {"tims": 2}}, "tims"),
        ({"class_path": "unlearun.metrics.MembershipScore", "init_args": {"attack": "los"}}, "Did you mean 'loss'"),
        ({"init_args": {}}, "no metric"),
    ],
)
def test_one_that_cannot_be_made_is_an_error(choice, message):
    with pytest.raises(UnlearunError, match=message):
        EvaluationSuite({"forget": SetTraits()}, [choice])
