"""Every metric in one harness: each example counts once, whoever saw it and how often, and nothing else counts."""

from __future__ import annotations

import math
import pickle
from dataclasses import replace

import pytest
import torch
from metrics.harness import CASES, NAMES, AnswerLength, feed, find_case, numbers, value_and_records
from metrics.questions import DEALS, SETS, by_hand, distinct, in_batches
from torchmetrics import MetricCollection
from torchmetrics.wrappers.abstract import WrapperMetric

from unlearun.metrics import ExactMemorization, ExtractionStrength, TruthRatio

pytestmark = pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")  # of a process without rows


@pytest.fixture(params=NAMES)
def case(request, classifier):
    return find_case(request.param, classifier)


@pytest.fixture(params=[name for name, case in CASES.items() if case.counts_eos is not None])
def token_case(request):
    return CASES[request.param]


def equal(expected, rel=1e-9):
    """Fluency's classifier is in fp32, and adds up otherwise where texts are padded."""
    return pytest.approx(expected, rel=rel, abs=1e-12, nan_ok=True)


def tolerance(request):
    return 1e-5 if "Fluency" in request.node.name else 1e-9


def expected_value(case):
    return case.value(*(SETS[name] for name in case.sets))


def expected_records(case, questions):
    return {q.id: record for q in sorted(questions, key=lambda q: q.id) if (record := case.record(q)) is not None}


# ---- one process ------------------------------------------------------------------------------------------------


def test_of_a_batch_and_of_an_epoch(case, request):
    """What forward says of each batch, what compute says of all, and the same again after a reset.

    Half-way it is pickled. Forward of a metric that is made of others gives the value so far.
    """
    metric, rel = case.make(), tolerance(request)
    for _ in range(2):
        seen = {name: [] for name in case.sets}
        for i, (name, questions) in enumerate(in_batches(case.sets)):
            if not isinstance(metric, WrapperMetric):
                seen = {name: [] for name in case.sets}
            seen[name] = seen[name] + questions
            assert numbers(metric(*case.arguments(name, questions))) == equal(case.value(*seen.values()), rel)
            if i == 1:
                metric = pickle.loads(pickle.dumps(metric))
        value, records = value_and_records(metric)
        assert value == equal(expected_value(case), rel)
        if case.record is not None:
            expected = expected_records(case, SETS[case.sets[0]])
            assert list(records) == list(expected)
            assert all(records[i] == equal(expected[i], rel) for i in expected)
        metric.reset()


def test_order_batches_and_repeats_change_nothing(case, request):
    """One batch of all rows in another order, and then some of them again."""
    batches = [(name, [*SETS[name][::-1], SETS[name][1]]) for name in case.sets]
    metric = feed(case, case.make(), [*batches, *in_batches(case.sets)[:1]])
    expected = expected_value(case)
    assert value_and_records(metric)[0] == equal(expected, tolerance(request))


def test_declares_what_torchmetrics_asks(case):
    metric = case.make()
    assert metric.is_differentiable is False
    assert metric.full_state_update is False
    assert metric.higher_is_better in (True, False, None)
    assert not list(metric.parameters())
    assert not metric.state_dict()


def test_plots(case):
    """A value, and several over time."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    metric = feed(case, case.make(), in_batches(case.sets))
    for shown in (None, [metric.compute(), metric.compute()]):
        figure, _ = metric.plot(shown)
        assert isinstance(figure, pyplot.Figure)
        pyplot.close(figure)


# ---- two processes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("deal", DEALS)
def test_two_processes_equal_one(of_two_processes, deal, case, request):
    """Both have the value and the records of one process that saw every row once."""
    name = request.node.callspec.params["case"]
    questions = distinct(deal, case.sets)
    for process in of_two_processes:
        value, records = process[deal][name]
        assert value == equal(case.value(*questions.values()), tolerance(request))
        if case.record is not None:
            expected = expected_records(case, questions[case.sets[0]])
            assert list(records) == list(expected)
            assert all(records[i] == equal(expected[i], tolerance(request)) for i in expected)
    assert repr(of_two_processes[0][deal][name]) == repr(of_two_processes[1][deal][name])


# ---- what is not looked at --------------------------------------------------------------------------------------


def test_padding_prompts_and_their_side_change_nothing(token_case):
    """Rows padded on the left, with other numbers, hits and ids wherever no label stands: the same."""
    batches = in_batches(token_case.sets)
    plain = numbers(feed(token_case, token_case.make(), batches).compute())
    other = numbers(feed(token_case, token_case.make(), batches, side="left", junk=-7.0).compute())
    assert other == equal(plain, rel=1e-12)


def test_the_eos_counts_where_it_should(token_case):
    """An eos that the model finds all but impossible changes every value, save those of what is said word for word."""

    def missed(answer):
        if answer is None or not answer.ends or len(answer.labels) == 1:
            return answer
        scores = [0.0] * len(answer.scores[-1])
        scores[answer.labels[-1]] = -30.0
        return replace(answer, scores=[*answer.scores[:-1], scores])

    def changed(question):
        wrong = [missed(answer) for answer in question.wrong[:1]] + question.wrong[1:]
        return replace(question, own=missed(question.own), paraphrase=missed(question.paraphrase), wrong=wrong)

    def value(change):
        first = token_case.sets[0]  # of members and strangers, those of the members
        batches = [(n, [change(q) if n == first else q for q in qs]) for n, qs in in_batches(token_case.sets)]
        return numbers(feed(token_case, token_case.make(), batches).compute())

    assert (value(changed) != value(lambda question: question)) is token_case.counts_eos


def test_bfloat16_logits(token_case):
    """They are reduced in fp32: the numbers are those of the same scores in float64, as the reference has them."""
    metric = feed(token_case, token_case.make(), in_batches(token_case.sets), dtype=torch.bfloat16)
    expected = expected_value(token_case)
    assert numbers(metric.compute()) == equal(expected, rel=2e-5)


# ---- rows and their ids, by hand --------------------------------------------------------------------------------


def lengths_of(*batches):
    """Records of rows of one, two, three tokens and so on: a row is known by its length."""
    metric = AnswerLength()
    for stats, batch in batches:
        metric.update(stats, batch)
    return metric


def of_lengths(*lengths, ids):
    stats, batch = by_hand(*([-1.0] * length for length in lengths))
    batch.example_id = None if ids is None else torch.tensor(ids)
    return stats, batch


def test_the_first_record_of_an_id_is_kept():
    """The same row is the same number; if rounding made two of one, which is kept must not depend on chance."""
    metric = lengths_of(of_lengths(1, 5, ids=[4, 2]), of_lengths(9, ids=[4]))
    assert metric.per_example() == {2: {"answer_length": 5}, 4: {"answer_length": 1}}
    assert list(metric.per_example()) == [2, 4]


def test_a_row_whose_labels_are_gone_counts_no_more():
    """Nor does it take the place of the same row with its labels."""
    metric = lengths_of(of_lengths(0, 2, ids=[3, 5]), of_lengths(4, ids=[3]))
    assert metric.per_example() == {3: {"answer_length": 4}, 5: {"answer_length": 2}}


def test_nothing_is_not_a_number():
    metric = AnswerLength()
    assert math.isnan(metric.compute().item())
    assert metric.per_example() == {}


def test_rows_without_ids_are_examples_of_their_own():
    """Over batches, behind rows that have ids, and by forward, which puts the state aside between."""
    batches = [of_lengths(1, 2, ids=None), of_lengths(3, 4, ids=[7, 6]), of_lengths(5, ids=None)]
    expected = {6: 4, 7: 3, 8: 1, 9: 2, 10: 5}
    metric = lengths_of(*batches)
    assert {i: record["answer_length"] for i, record in metric.per_example().items()} == expected
    metric = AnswerLength()
    assert [metric(*batch).item() for batch in batches] == [1.5, 3.5, 5]
    assert {i: record["answer_length"] for i, record in metric.per_example().items()} == expected


def test_other_answers_are_no_examples():
    stats, batch = by_hand([-1.0], [-1.0] * 2, [-1.0] * 3, id=[0, 0, 1], kind=[0, 1, 2])
    assert lengths_of((stats, batch)).per_example() == {0: {"answer_length": 1}}


def test_compute_leaves_the_state():
    """A value half-way does not change that of the end."""
    metric = lengths_of(of_lengths(2, ids=[0]))
    assert metric.compute().item() == 2
    metric.update(*of_lengths(4, ids=[1]))
    assert metric.compute().item() == 3


def test_answers_to_a_question_are_told_by_ids():
    stats, batch = by_hand([-1.0])
    batch.example_id = None
    with pytest.raises(ValueError, match="example_id"):
        TruthRatio().update(stats, batch)


def test_equal_first_values_do_not_make_one_metric_of_two():
    """In a MetricCollection, torchmetrics hands the states of one to the other where names and values are equal.

    Both are 1 on the first batch. On the second, [hit, miss], EM is 1/2 and ES 0: their means are 3/4 and 1/2.
    """
    collection = MetricCollection([ExactMemorization(), ExtractionStrength()], compute_groups=False)
    collection.update(*by_hand([-1.0], id=[0]))
    collection.update(*by_hand([-1.0, -2.0], id=[1]))
    assert {name: value.item() for name, value in collection.compute().items()} == {
        "ExactMemorization": 0.75,
        "ExtractionStrength": 0.5,
    }
