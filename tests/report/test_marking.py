"""Words that two texts share."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlearun.report.marking import mark_shared


def shared(text, other):
    return [piece.text for piece in mark_shared(text, other) if piece.shared]


@pytest.mark.parametrize(
    ("text", "other", "marked"),
    [
        ("Rex was born in Oslo.", "Mia was born in Bergen.", ["was born in"]),
        ("Oslo, Norway", "It is OSLO in norway.", ["Oslo", "Norway"]),
        ("one two", "two one", ["one"]),  # in the same order, so one of the two
        ("", "a", []),
        ("a", "", []),
        ("...", "...", []),
        ("Café au lait", "café", ["Café"]),
        ("東京で生まれた", "大阪で生まれた", ["で生まれた"]),
    ],
)
def test_words_in_the_same_order_are_shared(text, other, marked):
    assert shared(text, other) == marked


@given(st.text(max_size=60), st.text(max_size=60))
def test_the_pieces_are_the_text_again(text, other):
    assert "".join(piece.text for piece in mark_shared(text, other)) == text


@given(st.text(max_size=60))
def test_a_text_shares_all_its_words_with_itself(text):
    assert not any(any(c.isalnum() for c in piece.text) for piece in mark_shared(text, text) if not piece.shared)


def test_what_repeats_itself_takes_no_long():
    words = " ".join(f"w{i % 7}" for i in range(20_000))
    start = time.perf_counter()
    assert mark_shared(words, words[3:])
    assert time.perf_counter() - start < 10
