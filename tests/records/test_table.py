"""The records of a set as columns, and the bootstrap of all its scores."""

from __future__ import annotations

import numpy as np
import pytest

from unlearun.errors import UnlearunError
from unlearun.records import Score, mean
from unlearun.records.table import RESAMPLES, SetTable, interval

A = Score("a", ("a",), mean)
RECORDS = {"10": {"a": 4.0, "b": 1.0}, "9": {"a": 2.0}, "2": {"a": 0.0, "b": 3.0, "answer": "yes"}}


def test_examples_stand_in_the_order_of_their_numbers():
    table = SetTable("forget", RECORDS)
    assert table.ids == ["2", "9", "10"]
    assert table.columns(["a"])[:, 0].tolist() == [0.0, 2.0, 4.0]


def test_only_examples_with_all_columns_count():
    table = SetTable("forget", RECORDS)
    assert table.rows_with(["a", "b"]) == [0, 2]
    assert table.columns(["b", "a"]).tolist() == [[3.0, 0.0], [1.0, 4.0]]
    assert table.score(A) == 2.0
    assert table.score(Score("c", ("c",), mean)) is None
    assert SetTable("forget", {}).columns(["a"]).shape == (0, 1)


def test_null_is_not_a_number_and_a_text_is_an_error():
    assert np.isnan(SetTable("forget", {"0": {"a": None}}).columns(["a"])).all()
    with pytest.raises(UnlearunError, match="record of forget holds no number in answer"):
        SetTable("forget", RECORDS).columns(["answer"])


def test_resamples_follow_from_seed_and_set():
    again = SetTable("forget", RECORDS).weights(["a"])
    assert (SetTable("forget", RECORDS).weights(["a"]) == again).all()
    assert (SetTable("retain", RECORDS).weights(["a"]) != again).any()
    assert (SetTable("forget", RECORDS, seed=1).weights(["a"]) != again).any()
    assert again.shape == (RESAMPLES, 3)
    assert (again.sum(-1) == 3).all()


def test_all_columns_of_a_set_share_their_resamples():
    """What is missing in a column is missing in its resamples; the others count as in every other column."""
    table = SetTable("forget", RECORDS)
    assert (table.weights(["b"]) == table.weights(["a"])[:, [0, 2]]).all()
    shifted = SetTable("forget", {key: {"a": r["a"], "c": 10 - r["a"]} for key, r in RECORDS.items()})
    total = shifted.resampled(A) + shifted.resampled(Score("c", ("c",), mean))
    assert total == pytest.approx(np.full(RESAMPLES, 10.0))


def test_a_resample_without_any_example_is_unknown_and_left_out():
    drawn = SetTable("forget", {"0": {"a": 1.0}, "1": {}}).resampled(A)
    assert 0.15 < np.isnan(drawn).mean() < 0.35  # (1/2)² of them draw the empty record twice
    assert interval(drawn) == (1.0, 1.0)
    assert np.isnan(interval(np.array([np.nan]))).all()


def test_the_interval_of_a_mean_is_1_96_standard_errors():
    """200 normal values: within a tenth of the interval's width of mean ± 1.96 s / √200."""
    values = np.random.default_rng(0).normal(size=200)
    low, high = interval(SetTable("forget", {str(i): {"a": v} for i, v in enumerate(values)}).resampled(A))
    half = 1.96 * values.std() / np.sqrt(200)
    assert [low, high] == pytest.approx([values.mean() - half, values.mean() + half], abs=half / 5)


def test_the_interval_covers_the_truth_in_about_95_of_100_draws():
    generator = np.random.default_rng(2)
    covered = 0
    for draw in range(200):
        records = {str(i): {"a": v} for i, v in enumerate(generator.random(50))}
        low, high = interval(SetTable("forget", records, seed=draw).resampled(A))
        covered += low <= 0.5 <= high
    assert 0.9 <= covered / 200 <= 0.99
