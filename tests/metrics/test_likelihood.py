"""How likely answers are, worked out by hand. The harness of test_example_metric.py has the rest."""

from __future__ import annotations

import math

import pytest
from metrics.questions import by_hand

from unlearun.metrics import ChoiceAccuracy, ParaphraseProbability, Perplexity, Probability, TruthRatio

# Rows whose exp(S/n) is 0.8, 0.4, 0.2, 0.1 and 0.05; of 0.4 and 0.2 there are two tokens.
P80 = [math.log(0.8)]
P40 = [math.log(0.2), math.log(0.8)]
P20 = [math.log(0.2), math.log(0.2)]
P10 = [math.log(0.1)]
P05 = [math.log(0.05)]


def compute(metric, *rows, **columns):
    metric.update(*by_hand(*rows, **columns))
    return metric.compute().item()


def test_perplexity_is_over_all_tokens_alike():
    """S = -6, -4 and -0.25 of 3 + 5 + 1 = 9 tokens: exp(10.25 / 9) = 3.12329."""
    rows = [-1.0, -2.0, -3.0], [-0.5, -0.5, -0.5, -0.5, -2.0], [-0.25]
    assert compute(Perplexity(), *rows) == pytest.approx(3.12329, abs=1e-5)


def test_probability_is_over_rows_alike():
    """exp(-2) = 0.135335, exp(-0.8) = 0.449329 and exp(-0.25) = 0.778801 of the same rows: their mean is 0.454488."""
    rows = [-1.0, -2.0, -3.0], [-0.5, -0.5, -0.5, -0.5, -2.0], [-0.25]
    assert compute(Probability(), *rows) == pytest.approx(0.454488, abs=1e-6)


@pytest.mark.parametrize(("metric", "value"), [(Perplexity, math.e), (Probability, 1 / math.e)])
def test_an_answer_of_one_token(metric, value):
    assert compute(metric(), [-1.0]) == pytest.approx(value)


def test_long_answers_do_not_underflow():
    """2000 tokens of -10 have S = -20000, whose exponential no double holds; S/n stays -10."""
    row = [-10.0] * 2000
    assert compute(Probability(), row) == pytest.approx(4.539993e-05, rel=1e-6)
    assert compute(Perplexity(), row) == pytest.approx(math.exp(10))


def test_sums_are_in_double_precision_whatever_the_numbers_are():
    """200 tokens of -0.3, rounded to bfloat16, where sums in bfloat16 would be far off."""
    stats, batch = by_hand([-0.3] * 200)
    rounded = stats.logprobs.bfloat16()
    metric = Perplexity()
    metric.update(stats._replace(logprobs=rounded), batch)
    assert metric.compute().item() == pytest.approx(math.exp(-rounded.min().item()), rel=1e-12)


def test_normalized_probability_is_the_share_among_an_answer_and_the_wrong_ones():
    """0.4 / (0.4 + 0.2 + 0.1 + 0.1) = 0.5; the paraphrase has no part in it, nor has another question."""
    rows = [P40, P20, P10, P10, P80, P80]
    columns = {"id": [0, 0, 0, 0, 0, 1], "kind": [0, 2, 3, 4, 1, 2]}
    metric = Probability(normalized=True)
    assert compute(metric, *rows, **columns) == pytest.approx(0.5)
    assert list(metric.per_example()) == [0]


def test_a_row_without_wrong_answers_has_no_normalized_probability():
    """0.4 beside a wrong 0.1 is 0.8; a row alone would count 1, whatever it is."""
    columns = {"id": [0, 0, 1], "kind": [0, 2, 0]}
    metric = Probability(normalized=True)
    assert compute(metric, P40, P10, P80, **columns) == pytest.approx(0.8)
    assert list(metric.per_example()) == [0]


def test_paraphrase_probability_reads_paraphrases_alone():
    """0.2 and 0.1 of two paraphrases; a question without one does not count."""
    columns = {"id": [0, 0, 1, 2, 0], "kind": [0, 1, 1, 0, 2]}
    metric = ParaphraseProbability()
    assert compute(metric, P40, P20, P10, P80, P80, **columns) == pytest.approx(0.15)
    assert list(metric.per_example()) == [0, 1]


@pytest.mark.parametrize(
    ("right", "forget", "kept"),
    [
        (P40, 0.5, 0.5),  # R = 0.2 / 0.4 = 0.5: min(0.5, 2) and 1 - 0.5. Arithmetic: 0.425 / 0.4 = 1.06, so 0.94 and 0
        (P10, 0.5, 0.0),  # R = 2: min(2, 0.5), and what is below 0 is 0. Arithmetic: 4.25, so 0.235 and 0
        (P20, 1.0, 0.0),  # R = 1: the right answer cannot be told. Arithmetic: 2.125, so 0.47 and 0
        (P80, 0.25, 0.75),  # R = 0.25. Arithmetic: 0.53, so 0.53 and 0.47
    ],
)
def test_truth_ratio_takes_the_geometric_mean_of_wrong_answers(right, forget, kept):
    """Wrong answers of 0.8 and 0.05: their geometric mean is 0.2, the arithmetic one 0.425."""
    columns = {"id": [0] * 3, "kind": [0, 2, 3]}
    assert compute(TruthRatio(forget=True), right, P80, P05, **columns) == pytest.approx(forget)
    assert compute(TruthRatio(forget=False), right, P80, P05, **columns) == pytest.approx(kept)


def test_truth_ratio_of_two_questions_is_the_mean_of_what_each_is_worth():
    """R = 0.5 and 2: 0.5 each on a forget set, and 0.5 and 0 elsewhere. Their records are R itself."""
    columns = {"id": [0, 0, 1, 1], "kind": [0, 2, 0, 2]}
    metric = TruthRatio(forget=False)
    assert compute(metric, P40, P20, P10, P20, **columns) == pytest.approx(0.25)
    records = {i: record["truth_ratio"] for i, record in metric.per_example().items()}
    assert records == pytest.approx({0: 0.5, 1: 2.0})


def test_truth_ratio_compares_with_the_paraphrase_where_there_is_one():
    """The answer itself, 0.8, would be 0.25; its paraphrase, 0.4, is 0.5."""
    columns = {"id": [0] * 3, "kind": [0, 1, 2]}
    assert compute(TruthRatio(), P80, P40, P20, **columns) == pytest.approx(0.5)


def test_truth_ratio_is_known_only_where_there_are_both():
    """A question without a wrong answer, one without a right one, and one with both."""
    columns = {"id": [0, 1, 2, 2], "kind": [0, 2, 0, 2]}
    metric = TruthRatio()
    assert compute(metric, P80, P80, P40, P20, **columns) == pytest.approx(0.5)
    assert list(metric.per_example()) == [2]


@pytest.mark.parametrize(("right", "wrong", "kept"), [(-1e5, -1.0, 0.0), (-1.0, -1e5, 1.0)])
def test_truth_ratio_of_what_is_impossible_stays_a_number(right, wrong, kept):
    """R = exp(±1e5) is beyond a double, and so is its inverse; an infinite record would be lost in JSON."""
    columns = {"id": [0, 0], "kind": [0, 2]}
    for forget, value in ((True, 0.0), (False, kept)):
        metric = TruthRatio(forget=forget)
        assert compute(metric, [right], [wrong], **columns) == pytest.approx(value, abs=1e-100)
        assert 0 < metric.per_example()[0]["truth_ratio"] < math.inf


@pytest.mark.parametrize(
    ("right", "wrong", "counted"),
    [
        (P40, [P10, P20], 1.0),  # S: ln 0.16 against ln 0.1 and ln 0.04
        (P40, [P20, P80], 0.0),  # ln 0.8 is above
        (P10, [P40], 0.0),  # S, not S/n: ln 0.1 against ln 0.16, though 0.1 < 0.4 says the same
        (P20, [P10], 0.0),  # ln 0.04 against ln 0.1, though exp(S/n) is 0.2 against 0.1
        (P10, [P10, P10, P05], 1 / 3),  # three of a kind
    ],
)
def test_a_choice_is_right_where_no_other_answer_is_likelier(right, wrong, counted):
    columns = {"id": [0] * (1 + len(wrong)), "kind": [0, *range(2, 2 + len(wrong))]}
    assert compute(ChoiceAccuracy(), right, *wrong, **columns) == pytest.approx(counted)


def test_a_choice_counts_per_question_and_only_where_there_is_one():
    """Right, wrong, and a question without wrong answers; the paraphrase of 0.8 has no part in it."""
    columns = {"id": [0, 0, 0, 1, 1, 2], "kind": [0, 1, 2, 0, 2, 0]}
    metric = ChoiceAccuracy()
    assert compute(metric, P40, P80, P10, P20, P10, P80, **columns) == pytest.approx(0.5)
    assert list(metric.per_example()) == [0, 1]


def test_a_choice_between_equals_does_not_depend_on_how_often_a_question_is_there():
    columns = {"id": [0] * 4, "kind": [0, 2, 0, 2]}
    assert compute(ChoiceAccuracy(), P10, P10, P10, P10, **columns) == pytest.approx(0.5)


@pytest.mark.parametrize("broken", [0, 1, 2])
def test_a_choice_among_answers_without_a_number_has_none(broken):
    """A model that gives NaN is not right, and a wrong answer of NaN is not beaten; the other question counts on."""
    answers = [P40, P10, P20, P40, P10]
    answers[broken] = [math.nan] * len(answers[broken])
    metric = ChoiceAccuracy()
    compute(metric, *answers, id=[0, 0, 0, 1, 1], kind=[0, 2, 3, 0, 2])
    found = {key: record["choice_accuracy"] for key, record in metric.per_example().items()}
    assert math.isnan(found[0])
    assert found[1] == 1


def test_a_choice_leaves_out_how_likely_the_end_is():
    """Without it ln 0.4 is above ln 0.2; with it 0.4 · 0.1 is below 0.2 · 0.8."""
    right, wrong = ([math.log(first), math.log(end)] for first, end in ((0.4, 0.1), (0.2, 0.8)))
    columns = {"id": [0, 0], "kind": [0, 2], "ends": [True, True]}
    assert compute(ChoiceAccuracy(), right, wrong, **columns) == 1.0
