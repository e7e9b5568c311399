"""What is said of sets and rows that some metrics leave out."""

from __future__ import annotations

from conftest import FORGET, make_tokenizer

from unlearun.data import Formatter
from unlearun.data.cautions import cautions
from unlearun.data.rows import Keys, check_rows
from unlearun.data.sources import read_rows


def examples(rows):
    return Formatter(make_tokenizer()).format_all(check_rows(read_rows(rows, "here"), Keys(), "here"), "here")[0]


def test_nothing_is_said_of_rows_that_are_alike_and_short_enough():
    assert (
        list(cautions({"forget": examples(FORGET), "retain": examples(FORGET)}, {"forget": 100, "retain": 100})) == []
    )


def test_parts_of_a_set_and_long_answers_are_counted():
    """The tokenizer gives a token a character; "In Oslo, by the sea." has 20, "Her dog is Rex." 15."""
    rows = [{**FORGET[0], "perturbed_answer": ["no"]}, {**FORGET[3], "paraphrased_answer": "Rex"}, FORGET[1]]
    said = list(cautions({"forget": examples(rows)}, {"forget": 19}))
    long = sum(len(row["answer"]) > 19 for row in rows)
    assert 0 < long < 3
    starts = [
        "forget: 1 of 3 rows have a paraphrased answer",
        "forget: 1 of 3 rows have wrong answers",
        f"forget: {long} of 3 answers are longer than max_new_tokens=19",
    ]
    assert all(line.startswith(start) for line, start in zip(said, starts, strict=True))


def test_of_several_forget_sets_it_is_said_which_is_read():
    rows = examples(FORGET)
    (line,) = cautions({"forget_a": rows, "forget_b": rows, "retain": rows}, {})
    assert line.startswith("forget_a, forget_b are all forget sets")
    assert line.endswith("read forget_a")
    (line,) = cautions({"holdout_old": rows, "holdout": rows}, {})
    assert line.endswith("read holdout")
