from __future__ import annotations

import pytest
from conftest import FORGET, RETAIN

from unlearun.data import UnlearningDataModule, choose_refusal, preview
from unlearun.errors import UnlearunError


def shown(tokenizer, rows=3, alternate=None, **settings) -> list[str]:
    data = UnlearningDataModule(FORGET, RETAIN, **settings)
    data.connect(tokenizer, alternate=alternate)
    return preview(data, rows).split("\n\n")


def test_labelled_tokens_are_marked_and_parted(tokenizer):
    """Labelled is the answer with its space and eos; one token a character."""
    parts = shown(tokenizer, rows=1)
    assert parts[0] == "labelled tokens stand between [[ and ]]; | parts tokens"
    assert parts[2] == f"Question: Where does Anna live?\nAnswer:[[{'|'.join(' In Oslo, by the sea.')}|<eos>]]"


def test_every_set_is_counted_and_its_first_rows_shown(tokenizer):
    """Answers have 20, 21, 22 and 15 characters; each has a space before it and eos behind it."""
    parts = shown(tokenizer, rows=2)
    tokens = sum(len(row["answer"]) + 2 for row in FORGET)
    assert tokens == 86
    assert parts[1] == "forget: 4 rows, 86 labelled tokens"
    assert parts[4].startswith("retain: 6 rows, ")
    assert len(parts) == 1 + 2 * (1 + 2)
    assert "What does Ben eat?" in parts[3]


def test_a_set_with_fewer_rows_is_shown_whole(tokenizer):
    assert len(shown(tokenizer, rows=100)) == 1 + (1 + 4) + (1 + 6)


def test_a_cut_answer_shows_no_eos(tokenizer):
    """A prompt of 39 tokens leaves six of 45."""
    parts = shown(tokenizer, rows=1, max_length=45)
    assert parts[2] == "Question: Where does Anna live?\nAnswer:[[ |I|n| |O|s]]"


def test_alternate_answers_stand_below_their_rows(tokenizer):
    parts = shown(tokenizer, rows=2, alternate="any", seed=1)
    for row in range(2):
        pieces = "|".join(f" {choose_refusal(1, row)}")
        assert parts[3 + 2 * row] == f"alternate answer: [[{pieces}|<eos>]]"
    assert sum(part.startswith("alternate answer") for part in parts) == 2


def test_without_a_tokenizer_there_is_nothing_to_show():
    with pytest.raises(UnlearunError, match="connect the datamodule to a tokenizer first"):
        preview(UnlearningDataModule(FORGET, RETAIN))
