from __future__ import annotations

import pickle
from array import array

import pytest

from unlearun.data import Item
from unlearun.data.examples import TokenIds, TokenTable

ITEMS = [Item("row 0", "Who?", "Anna."), Item("row 1", None, "A long text.")]


@pytest.fixture
def table():
    """A question, and a text in two pieces."""
    table = TokenTable()
    table.add([1, 2, 3, 9], 2, True, 0)
    table.add([4, 5], 1, False, 1)
    table.add([6, 7, 9], 1, True, 1)
    return table


def test_a_table_gives_back_its_rows(table):
    rows = [(e.example_id, e.input_ids, e.start, e.labelled, e.ends, e.item) for e in table.examples(ITEMS)]
    assert rows == [
        (0, [1, 2, 3, 9], 2, 2, True, ITEMS[0]),
        (1, [4, 5], 1, 1, False, ITEMS[1]),
        (2, [6, 7, 9], 1, 2, True, ITEMS[1]),
    ]
    assert [e.example_id for e in table.examples(ITEMS, [7, 8, 8])] == [7, 8, 8]


def test_a_table_takes_four_bytes_a_token(table):
    assert table.tokens.itemsize * len(table.tokens) == 4 * 9


def test_the_tokens_of_a_row_are_as_a_list_of_them():
    ids, expected = TokenIds(array("i", range(10)), 3, 7), [3, 4, 5, 6]
    assert ids == expected == list(ids)
    assert expected == ids
    assert ids != [3, 4, 5]
    assert ids != "3456"
    assert len(ids) == 4
    for cut in (slice(None), slice(1, -1), slice(2), slice(5, 9), slice(None, None, -1)):
        assert ids[cut] == expected[cut]
    assert [ids[0], ids[-1]] == [3, 6]
    with pytest.raises(IndexError):
        _ = ids[4]
    assert pickle.loads(pickle.dumps(ids)) == expected  # as a DataLoader's worker gets it where processes do not fork
