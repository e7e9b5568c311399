"""All metrics of all sets from one forward and one generation, on one process and on two."""

from __future__ import annotations

import pytest
import torch
from conftest import make_llama, random_batch
from metrics import references as right
from metrics.harness import feed_suite, full_suite, retain_reference, texts
from metrics.questions import DEALS, SETS, TRAITS, by_hand, distinct, in_batches, make_batch
from scipy.stats import ks_2samp

from unlearun.data import Batch
from unlearun.metrics import EvaluationSuite, MembershipScore, SetTraits
from unlearun.metrics.membership import TITLES
from unlearun.models import Policy
from unlearun.records import ROUGE_COLUMNS, Evaluation, summarise

TEXTS = ("question", "answer", "generation")


def evaluate(sets, choices=None):
    """Evaluate questions by name of their set, in one batch each."""
    return feed_suite(EvaluationSuite({name: TRAITS[name] for name in sets}, choices), list(sets.items())).compute()


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    return feed_suite(full_suite(retain_reference()), in_batches(list(SETS))).compute(7)


# ---- what it returns --------------------------------------------------------------------------------------------


def expected_of_a_set(name, questions):
    """Every score of a set, by its name in the summary."""
    own = [q.own for q in questions]
    said = [q.generation for q in questions]
    rouge = [right.rouge(q.generation, q.own.text) for q in questions]
    probability = right.normalized_probability if name == "facts" else lambda q: right.probability(q.own)
    found = {
        "perplexity": right.perplexity(questions),
        "probability": right.average(map(probability, questions)),
        "exact_memorization": right.average(map(right.exact_memorization, own)),
        "extraction_strength": right.average(map(right.extraction_strength, own)),
        "verbatim_memorization": right.average(float(q.generation == q.own.text) for q in questions),
        "rouge": right.average(row["rougeL_recall"] for row in rouge),
        **{column: right.average(row[column] for row in rouge) for column in ROUGE_COLUMNS},
        "rougeL_f1_unstemmed": right.average(row["rougeL_f1"] for row in rouge),
        "short_answer": right.average(
            None if q.short is None else float(q.short.lower() in q.generation.lower()) for q in questions
        ),
        "answer_length": right.average(len(answer.labels) for answer in own),
        "word_count": right.average(len(text.split()) for text in said),
    }
    if any(q.wrong for q in questions):
        found["choice_accuracy"] = right.average(map(right.choice_accuracy, questions))
        found["truth_ratio"] = (right.forget_truth_ratio if name == "forget" else right.kept_truth_ratio)(questions)
    return {f"{name}/{title}": value for title, value in found.items()}


def area(attack, members="forget"):
    return right.auroc([*map(attack, SETS[members])], [*map(attack, SETS["holdout"])])


def known_ratios(name):
    return [ratio for ratio in map(right.truth_ratio, SETS[name]) if ratio is not None]


def expected_aggregates():
    """The reference model says of the forget questions what ours says of retain; see `retain_reference`."""
    rest = 1 - area(right.ATTACKS["min_k"], "retain")
    of_reference = {name: {q.id: sum(q.own.logprobs) for q in SETS[name]} for name in ("retain", "holdout")}
    surplus = [
        [(sum(q.own.logprobs) - of_reference[theirs][q.id]) / len(q.own.logprobs) for q in SETS[ours]]
        for ours, theirs in (("forget", "retain"), ("holdout", "holdout"))
    ]
    p = ks_2samp(known_ratios("forget"), known_ratios("retain")).pvalue
    return {
        "forget_quality": right.forget_quality(SETS["forget"]),
        "model_utility": right.model_utility(SETS["retain"], SETS["facts"]),
        **{title: area(right.ATTACKS[attack]) for attack, title in TITLES.items()},
        "mia_reference": right.auroc(*surplus),
        "mia_grad_norm": area(lambda q: -q.norm),
        "privleak": ((1 - area(right.ATTACKS["min_k"])) - rest) / rest * 100,
        "ks_forget_quality": p,
        "ks_forget_quality_log10": torch.tensor(p, dtype=torch.float64).log10().item(),
    }


def test_summary(evaluation):
    """Every value under its name, and no other, against plain Python."""
    expected = expected_aggregates()
    for name, questions in SETS.items():
        expected |= expected_of_a_set(name, questions)
    assert evaluation.summary == pytest.approx(expected, rel=1e-9)
    assert evaluation.step == 7


def test_what_it_is_made_of_is_named(evaluation):
    of_quality = ("exact_memorization", "extraction_strength", "paraphrase_probability", "choice")
    of_utility = ("probability", "rouge", "truth_ratio")
    assert evaluation.parts == {
        "forget_quality": [f"1-{part}" for part in of_quality],
        "model_utility": [f"{name}/{part}" for name in ("retain", "facts") for part in of_utility],
    }
    assert evaluation.metrics[:2] == ["perplexity", "probability"]
    assert evaluation.metrics[-2:] == ["metrics.harness.AnswerLength", "metrics.harness.WordCount"]
    assert all(low <= high for low, high in evaluation.intervals.values())
    assert {"model_utility", "mia", "facts/word_count"} <= set(evaluation.intervals)


def test_records_have_texts_and_the_numbers_of_every_metric(evaluation):
    """In the order of ids; of what a question lacks there is no number."""
    assert {name: list(rows) for name, rows in evaluation.examples.items()} == {name: list("02479") for name in SETS}
    by_id = {str(q.id): q for q in SETS["forget"]}
    for key, record in evaluation.examples["forget"].items():
        question = by_id[key]
        assert [record[text] for text in TEXTS] == [f"{key}?", question.own.text, question.generation]
        assert record["probability"] == pytest.approx(right.probability(question.own))
        assert record["word_count"] == len(question.generation.split())
        assert record["mia_grad_norm"] == -question.norm
        assert ("truth_ratio" in record) is bool(question.wrong)
        assert ("short_answer" in record) is (question.short is not None)
        assert ("paraphrase_probability" in record) is (question.paraphrase is not None)
    assert "mia" not in evaluation.examples["retain"]["0"]


@pytest.mark.parametrize("choice", ["probability", "rouge", "mia", "model_utility"])
def test_what_was_not_asked_for_is_not_there(choice):
    evaluation = evaluate(SETS, [choice])
    aggregates = {name for name in evaluation.summary if "/" not in name}
    assert aggregates == {choice} & {"mia", "model_utility"}
    assert evaluation.metrics == [choice]
    assert evaluation.parts.keys() == aggregates & {"model_utility"}


# ---- one forward ------------------------------------------------------------------------------------------------


def test_one_update_feeds_all_that_read_tokens_and_another_all_that_read_texts():
    suite = EvaluationSuite({"forget": TRAITS["forget"], "holdout": TRAITS["holdout"]})
    assert suite.needs_texts("forget")
    suite.update("forget", *make_batch(SETS["forget"]))
    fed = {type(metric).__name__: len(metric.per_example()) for metric in suite.of("forget")}
    assert {name for name, rows in fed.items() if rows} == {
        "Perplexity",
        "Probability",
        "ExactMemorization",
        "ExtractionStrength",
        "ParaphraseProbability",
        "TruthRatio",
        "MembershipScore",
    }
    generated, answers, ids = texts("forget", SETS["forget"])
    suite.update_texts("forget", ids, generated, answers, short_answers=[q.short for q in SETS["forget"]])
    assert all(metric.per_example() for metric in suite.of("forget"))
    assert not any(metric.per_example() for metric in suite.of("holdout"))


@pytest.mark.parametrize(
    ("name", "choices", "others"),
    [
        ("forget", ["perplexity", "rouge", "mia_zlib", "extraction_strength"], False),
        ("forget", ["truth_ratio"], True),
        ("forget", ["forget_quality"], True),
        ("facts", ["probability"], True),  # it is divided by the wrong answers'
        ("holdout", ["truth_ratio"], False),
        ("holdout", None, False),
    ],
)
def test_other_answers_are_run_only_where_a_metric_reads_them(name, choices, others):
    suite = EvaluationSuite(TRAITS, choices)
    _, batch = make_batch(SETS["forget"])
    rows = suite.needed(name, batch)
    assert len(rows) == (len(batch) if others else 5)
    assert set(rows.example_id.tolist()) == {q.id for q in SETS["forget"]}


def test_the_rows_that_are_needed_give_the_same_records():
    """Also when the longest answer, and its column of texts, is no longer there."""
    values = []
    for drop in (False, True):
        suite = EvaluationSuite(TRAITS, ["probability", "mia_zlib", "extraction_strength"])
        stats, batch = make_batch(SETS["forget"])
        if drop:
            rows = suite.needed("forget", batch)
            used = batch.attention_mask[batch.kind == 0].any(0)
            stats, batch = stats._make(value[batch.kind == 0][:, used] for value in stats), rows
        suite.update("forget", stats, batch)
        values.append(suite.collect().examples["forget"])
    assert list(values[0]) == list(values[1]) != []
    for key, record in values[0].items():
        assert record == pytest.approx(values[1][key], rel=1e-12)


@pytest.mark.parametrize(
    ("choices", "reads_texts", "reads_gradients"),
    [
        (["probability", "mia"], False, False),
        (["rouge"], True, False),
        (["metrics.harness.WordCount"], True, False),
        (["mia_grad_norm"], False, True),
        (["model_utility"], False, False),  # of retain, not of forget
    ],
)
def test_passes_are_run_only_where_a_metric_reads_them(choices, reads_texts, reads_gradients):
    suite = EvaluationSuite(TRAITS, choices)
    assert suite.needs_texts("forget") is reads_texts
    assert suite.needs_gradients("forget") is reads_gradients


# ---- what is kept apart -----------------------------------------------------------------------------------------


def test_metrics_with_equal_first_values_stay_two():
    """EM and ES are 1 on the first batch; on the second, [hit, miss], they are 1/2 and 0. torchmetrics would merge."""
    suite = EvaluationSuite({"forget": SetTraits()}, ["exact_memorization", "extraction_strength"])
    suite.update("forget", *by_hand([-1.0], id=[0]))
    suite.update("forget", *by_hand([-1.0, -2.0], id=[1]))
    assert suite.compute().summary == {"forget/exact_memorization": 0.75, "forget/extraction_strength": 0.5}


def test_sets_are_kept_apart(evaluation):
    """Their metrics have states of equal names, and their rows have equal ids."""
    alone = evaluate({"retain": SETS["retain"]}, ["probability", "rouge"])
    together = {key: evaluation.summary[key] for key in alone.summary}
    assert alone.summary == pytest.approx(together, rel=1e-12)


def test_who_asked_for_all_gets_what_a_retain_reference_brings_later():
    """And who asked for all and more the same; who named one gets no more."""
    reference = retain_reference()
    found = {}
    for names in (None, ["all"], ["all", "rougeL_f1_unstemmed"], ["probability"]):
        one = evaluate(SETS, names)
        assert "ks_forget_quality" not in one.summary
        summarise(one, reference)
        found[str(names)] = {*one.summary} & {"ks_forget_quality", "privleak", "mia_reference"}
    first, *others, last = found.values()
    assert first == {"ks_forget_quality", "privleak", "mia_reference"}
    assert others == [first, first]
    assert last == set()


def test_attacks_are_kept_apart():
    """They are metrics of one class."""
    suite = EvaluationSuite(TRAITS, ["mia", "mia_min_k"])
    scores = [metric for metric in suite.of("forget") if isinstance(metric, MembershipScore)]
    assert [metric.attack for metric in scores] == ["loss", "min_k"]
    assert [metric.columns for metric in scores] == [("mia",), ("mia_min_k",)]


def test_compute_resets():
    """A second round is not mixed with the first: neither numbers nor texts."""
    suite = EvaluationSuite({"forget": TRAITS["forget"]})
    feed_suite(suite, [("forget", SETS["forget"][:2])])
    first = suite.compute()
    feed_suite(suite, [("forget", SETS["forget"][2:])])
    second = suite.compute()
    assert [sorted(found.examples["forget"]) for found in (first, second)] == [["0", "4"], ["2", "7", "9"]]
    fresh = evaluate({"forget": SETS["forget"][2:]})
    assert second.summary == pytest.approx(fresh.summary, rel=1e-12)
    assert second.intervals == fresh.intervals


def test_names_of_sets_that_a_module_dict_would_not_take():
    sets = {name: SetTraits() for name in ("forget", "world.facts", "update", "")}
    suite = EvaluationSuite(sets, ["probability"])
    for i, name in enumerate(sets):
        suite.update(name, *by_hand([-float(i)]))
    summary = suite.compute().summary
    assert [summary[f"{name}/probability"] for name in sets] == pytest.approx([2.718281828**-i for i in range(4)])


def test_holds_nothing_that_is_saved():
    suite = feed_suite(EvaluationSuite(TRAITS), in_batches(list(SETS)))
    assert suite.state_dict() == {}
    assert not list(suite.parameters())


def test_sets_without_rows_have_records_and_no_values():
    evaluation = evaluate({"forget": [], "holdout": SETS["holdout"]}, ["probability", "mia"])
    assert list(evaluation.summary) == ["holdout/probability"]
    assert evaluation.examples["forget"] == {}


def test_a_set_that_it_does_not_have():
    with pytest.raises(ValueError, match="not in tuple"):
        EvaluationSuite({"forget": SetTraits()}).update("retain", *by_hand([-1.0]))


# ---- two processes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("deal", DEALS)
def test_two_processes_find_what_one_does(of_two_processes, deal):
    """The same record keys in the same order, the same texts, values to 1e-8; and both processes find the same."""
    first, second = (process[deal]["suite"] for process in of_two_processes)
    assert repr(first) == repr(second)
    rows = distinct(deal, list(SETS))
    alone = feed_suite(full_suite(retain_reference()), list(rows.items())).compute(3, intervals=bool(first.intervals))
    for part in ("summary", "intervals"):
        ours, theirs = getattr(first, part), getattr(alone, part)
        assert list(ours) == list(theirs)
        for key in ours:
            assert ours[key] == pytest.approx(theirs[key], rel=1e-8, abs=1e-12, nan_ok=True)
    assert (first.step, first.parts, first.metrics) == (3, alone.parts, alone.metrics)
    for name in SETS:
        assert list(first.examples[name]) == list(alone.examples[name])
        for key, record in first.examples[name].items():
            expected = dict(alone.examples[name][key])
            assert list(record) == list(expected)
            assert [record.pop(text) for text in TEXTS] == [expected.pop(text) for text in TEXTS]
            assert record == pytest.approx(expected, rel=1e-8)


# ---- from the network on ----------------------------------------------------------------------------------------


def moved_to_the_right(batch):
    """The same rows, padded on the left instead."""
    moved = {}
    for name in ("input_ids", "attention_mask", "labels"):
        pairs = zip(getattr(batch, name), batch.attention_mask, strict=True)
        moved[name] = torch.stack([values.roll(int((mask == 0).sum())) for values, mask in pairs])
    return Batch(**moved, example_id=batch.example_id, texts=batch.texts)


def test_rows_padded_on_either_side_have_the_same_records():
    policy = Policy(make_llama().double()).eval()
    batch = random_batch(rows=4, tokens=12)
    batch.texts = ("cat", "red", "sun", "mat")
    found = []
    for rows in (batch, moved_to_the_right(batch)):
        suite = EvaluationSuite({"forget": SetTraits(), "holdout": SetTraits()})
        with torch.no_grad():
            suite.update("forget", policy(rows, "stats"), rows)
        found.append(suite.collect().examples["forget"])
    assert not torch.equal(batch.labels, moved_to_the_right(batch).labels)
    assert list(found[0]) == list(found[1]) == ["0", "1", "2", "3"]
    for key, record in found[0].items():
        assert len(record) == 10
        assert record == pytest.approx(found[1][key], rel=1e-9)


def test_perplexity_is_the_models_own_loss():
    """Hugging Face's loss is the mean over labels of -lp."""
    model, batch = make_llama(), random_batch()
    loss = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels).loss
    suite = EvaluationSuite({"retain": SetTraits()}, ["perplexity"])
    suite.update("retain", Policy(model).eval()(batch, "stats"), batch)
    assert suite.compute().summary["retain/perplexity"] == pytest.approx(loss.exp().item(), rel=1e-5)
