from __future__ import annotations

import pytest
from conftest import make_tokenizer

from unlearun.data import Formatter, Item
from unlearun.data.sampler import Draw, DrawnBatches, RowStream, StepSampler

SPLITS = [(1, 8, 1), (2, 4, 1), (1, 2, 4), (2, 2, 2), (4, 1, 2)]  # world, batch, accumulate: always 8 rows a step
LENGTHS = [1, 10, 100, 1000, 10_000] * 5  # so that a sum tells which rows it is of


def draws(world, batch, accumulate, size=21, epoch_rows=None, epoch=0, seed=0, lengths=LENGTHS, **settings):
    """The draws of an epoch: one list a rank."""
    stream = RowStream(size, seed)
    ranks = []
    for rank in range(world):
        rows = size if epoch_rows is None else epoch_rows
        sampler = StepSampler(lengths, stream, rows, batch, accumulate, rank, world, **settings)
        sampler.set_epoch(epoch)
        ranks.append(list(sampler))
        assert len(ranks[-1]) == len(sampler)
    return ranks


def steps(ranks, accumulate):
    """The draws of each optimizer step, of all ranks and micro-batches together."""
    micro = list(zip(*ranks, strict=True))  # ranks get equally many, or this fails
    return [
        [draw for same_time in micro[start : start + accumulate] for draw in same_time]
        for start in range(0, len(micro), accumulate)
    ]


def rows_of(drawn):
    return [row for draw in drawn for row in draw.rows]


# ---- RowStream --------------------------------------------------------------------------------------------------


def test_a_stream_uses_up_each_permutation_before_the_next():
    rows = RowStream(6, seed=0).slice(0, 18)
    thirds = [rows[:6], rows[6:12], rows[12:]]
    assert [sorted(third) for third in thirds] == [list(range(6))] * 3
    assert len({tuple(third) for third in thirds}) == 3  # reshuffled each time


def test_a_stream_has_no_state():
    stream = RowStream(6, seed=0)
    whole = stream.slice(0, 20)
    assert stream.slice(7, 13) == RowStream(6, seed=0).slice(0, 20)[7:13] == whole[7:13]
    assert stream.slice(3, 3) == []
    assert RowStream(6, seed=1).slice(0, 20) != whole


def test_a_stream_can_keep_the_order_of_the_set():
    assert RowStream(3, seed=0, shuffle=False).slice(1, 8) == [1, 2, 0, 1, 2, 0, 1]


# ---- StepSampler ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", SPLITS)
def test_the_anchored_set_is_passed_exactly_once_an_epoch_in_a_new_order(split):
    orders = []
    for epoch in range(3):
        orders.append(rows_of(rows_of_step for rank in draws(*split, epoch=epoch) for rows_of_step in rank))
        assert sorted(orders[-1]) == list(range(21))
    assert len({tuple(order) for order in orders}) == 3


@pytest.mark.parametrize("split", SPLITS)
def test_the_other_set_is_drawn_without_replacement_over_epochs(split):
    """Four rows an epoch out of six: after three epochs each row was drawn exactly twice, no sooner a second time."""
    drawn = []
    for epoch in range(3):
        for step in steps(draws(*split, size=6, epoch_rows=4, epoch=epoch), split[2]):
            drawn += sorted(rows_of(step))
    assert len(set(drawn[:4])) == 4
    assert sorted(drawn) == sorted([*range(6), *range(6)])


def test_an_other_set_smaller_than_the_anchor_is_used_up_evenly():
    """Eight rows out of three: two whole permutations and two rows of a third."""
    drawn = rows_of(draws(1, 8, 1, size=3, epoch_rows=8)[0])
    assert sorted(drawn[:6]) == [0, 0, 1, 1, 2, 2]
    assert len(set(drawn[6:])) == 2


@pytest.mark.parametrize("split", SPLITS)
def test_ranks_never_share_a_row(split):
    ranks = [set(rows_of(rank)) for rank in draws(*split)]
    assert sum(map(len, ranks)) == len(set.union(*ranks)) == 21


@pytest.mark.parametrize("epoch", [0, 3])
@pytest.mark.parametrize("split", SPLITS[1:])
def test_an_optimizer_step_takes_the_same_rows_however_it_is_split(split, epoch):
    """21 rows in steps of 8: 8, 8 and a last, shorter window of 5."""
    whole = [sorted(rows_of(step)) for step in steps(draws(*SPLITS[0], epoch=epoch), 1)]
    assert list(map(len, whole)) == [8, 8, 5]
    assert [sorted(rows_of(step)) for step in steps(draws(*split, epoch=epoch), split[2])] == whole


@pytest.mark.parametrize("split", SPLITS)
def test_every_draw_knows_the_size_of_its_step_the_last_shorter_one_included(split):
    for step in steps(draws(*split), split[2]):
        rows = rows_of(step)
        assert {draw.step_rows for draw in step} == {len(rows)}
        assert {draw.step_tokens for draw in step} == {sum(LENGTHS[row] for row in rows)}


def test_alternate_answers_have_their_own_count():
    for draw in draws(1, 8, 1, alternate_lengths=[[2]] * 21)[0]:
        assert draw.alternate_tokens == 2 * len(draw.rows)


def test_micro_batches_hold_at_most_batch_size_rows():
    sizes = [[len(draw.rows) for draw in rank] for rank in draws(2, 4, 1)]
    assert sizes == [[4, 4, 3], [4, 4, 2]]  # the last five are dealt evenly


def test_ranks_get_equally_many_batches_if_need_be_without_rows():
    """9 rows, 2 ranks of 2: micro-batches of 4, 4 and 1; the second rank has none of the last."""
    first, second = draws(2, 2, 2, size=9)
    assert [len(draw.rows) for draw in first] == [2, 2, 1]
    assert [len(draw.rows) for draw in second] == [2, 2, 0]
    assert (second[-1].step_rows, second[-1].step_tokens) == (1, first[-1].step_tokens)


# ---- DrawnBatches -----------------------------------------------------------------------------------------------


@pytest.fixture
def examples():
    formatter = Formatter(make_tokenizer())
    return [formatter.format(Item("", "Who?", "A" * (row + 1)), row)[0] for row in range(3)]


def test_a_draw_becomes_a_batch_of_its_rows(examples):
    """Answers " A", " AA", " AAA" and eos: 3, 4 and 5 labelled tokens."""
    batch = DrawnBatches(examples, 0)[Draw((2, 0), 12, 3)]
    assert batch.example_id.tolist() == [2, 0]
    assert batch.mask.sum(-1).tolist() == [5, 3]
    assert (batch.token_count, batch.row_count, batch.alternate) == (12, 3, None)


def test_a_number_is_that_row_alone_as_its_own_step(examples):
    batch = DrawnBatches(examples, 0)[1]
    assert batch.example_id.tolist() == [1]
    assert (batch.token_count, batch.row_count) == (4, 1)


def test_alternates_stand_beside_their_rows_with_their_own_count(examples):
    formatter = Formatter(make_tokenizer())
    others = [[formatter.format(example.item, example.example_id, "No.")[0]] for example in examples]
    batches = DrawnBatches(examples, 0, others)
    batch = batches[Draw((2, 0), 8, 2, alternate_tokens=10)]
    assert batch.alternate.example_id.tolist() == [2, 0]
    assert batch.alternate.mask.sum(-1).tolist() == [5, 5]  # " No." and eos
    assert (batch.alternate.token_count, batch.alternate.row_count) == (10, 2)
    assert batches[0].alternate.token_count == 5
    filler = batches[Draw((), 8, 2, alternate_tokens=10)]
    assert filler.alternate.mask.sum() == filler.mask.sum() == 0


def test_a_draw_without_rows_becomes_a_filler(examples):
    batch = DrawnBatches(examples, 0)[Draw((), 12, 3)]
    assert batch.mask.sum() == 0
    assert batch.example_id.tolist() == [-1]
    assert (batch.token_count, batch.row_count) == (12, 3)


def test_alternates_take_turns_by_how_often_their_row_was_drawn():
    """Two rows in a stream of which an epoch takes six, three passes: each row has its three options in turn."""
    sampler = StepSampler([1, 1], RowStream(2, seed=0), 6, 2, alternate_lengths=[[1, 1, 1]] * 2)
    turns = {0: [], 1: []}
    for draw in sampler:
        for row, turn in zip(draw.rows, draw.turns, strict=True):
            turns[row].append(turn)
    assert turns == {0: [0, 1, 2], 1: [0, 1, 2]}
    sampler.set_epoch(1)
    assert [turn for draw in sampler for turn in draw.turns] == [3, 3, 4, 4, 5, 5]
