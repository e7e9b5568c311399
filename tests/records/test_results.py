from __future__ import annotations

import math

from unlearun.records import ROUGE_COLUMNS, Evaluation, Results, before_after, number, text_table


def cells(printed: str) -> dict[str, str]:
    rows = [" ".join(line.split()) for line in printed.split("\n")[2:]]
    return dict(row.split(" ", 1) for row in rows)


def test_columns_line_up():
    lines = text_table(["", "a"], [["x", "1"], ["long", "22"]]).split("\n")
    assert lines == ["       a", "----  --", "x      1", "long  22"]


def test_a_long_text_is_broken_into_lines_below_each_other():
    lines = text_table(["", "a", "text"], [["x", "1", "word " * 40]], texts=1).split("\n")
    assert lines[0] == "   a  text"
    assert len(lines) == 4
    assert max(map(len, lines)) <= 120
    assert lines[3].startswith("      word")


def test_before_after_leaves_out_what_was_not_measured_before():
    table = before_after({"forget/probability": 0.9}, {"forget/probability": 0.1, "new": 1.0})
    assert table.split("\n")[2].split() == ["forget/probability", "0.900", "0.100", "lower"]
    assert "new" not in table


def test_aggregates_of_different_parts_are_not_compared():
    values = {"forget_quality": 0.25, "model_utility": 0.5, "mia": 0.75}
    first = {"forget_quality": ["1-choice"], "model_utility": ["retain/rouge", "retain/probability"]}
    last = {"forget_quality": ["1-choice", "1-probability"], "model_utility": ["retain/probability", "retain/rouge"]}
    lines = before_after(values, values, first, last).split("\n")
    assert [line.split() for line in lines[2:5]] == [
        ["forget_quality", "-", "0.250", "higher"],
        ["model_utility", "0.500", "0.500", "higher"],
        ["mia", "0.750", "0.750", "0.5"],
    ]
    assert lines[5:] == ["", "- not compared, because their parts differ before and after: forget_quality"]


def test_parts_that_are_not_known_or_shown_say_nothing():
    values, parts = {"model_utility": 0.5}, {"model_utility": ["retain/rouge"], "forget_quality": ["1-choice"]}
    plain = before_after(values, values)
    assert "not compared" not in plain
    assert before_after(values, values, parts, {}) == plain
    assert before_after(values, values, after_parts=parts) == plain
    assert before_after(values, values, parts, {**parts, "forget_quality": ["1-probability"]}) == plain


def test_before_after_shows_one_rouge_a_set():
    values = {f"{name}/{column}": 0.5 for name in ("forget", "retain") for column in ("rouge", *ROUGE_COLUMNS)}
    assert list(cells(before_after(values, values))) == ["forget/rouge", "retain/rouge"]


def test_results_print_value_direction_and_meaning_of_each_set():
    printed = cells(str(Results({"perplexity": 12.0, "retain/perplexity": 2.0, "mia": 0.31})))
    assert printed == {
        "perplexity": "12.000 higher as open as a choice among 12 tokens",
        "retain/perplexity": "2.000 lower as open as a choice among 2 tokens",
        "mia": "0.310 0.5 over-unlearned, the members look less familiar than strangers",
    }


def test_results_are_a_mapping_with_details_that_the_table_leaves_out():
    results = Results({"rouge": 0.5, "rougeL_recall": 0.5, "rouge1_f1": 0.25})
    assert results["rouge1_f1"] == 0.25
    assert list(cells(str(results))) == ["rouge"]
    assert list(cells(str(Results({"rouge1_f1": 0.25})))) == ["rouge1_f1"]


def test_intervals_and_parts_are_kept_and_printed():
    results = Results(
        {"model_utility": 0.5, "ks_forget_quality": 0.2, "mia": math.nan},
        {"model_utility": (0.25, 0.75), "mia": (math.nan, math.nan), "other": (0.0, 1.0)},
        {"model_utility": [f"set_{i}/probability" for i in range(9)], "forget_quality": ["1-choice"]},
    )
    lines = str(results).split("\n")
    assert lines[0].split() == ["value", "95%", "interval", "better", "meaning"]
    assert "0.250 to 0.750" in lines[2]
    assert "its truth ratios are not told apart" in lines[3]
    assert "nan" in lines[4]
    assert "some records hold no number" in lines[4]
    assert lines[6].startswith("model_utility: harmonic mean of set_0/probability, set_1/probability")
    assert max(map(len, lines)) <= 120
    assert results.intervals["model_utility"] == (0.25, 0.75)
    assert set(results.intervals) == {"model_utility", "mia"}
    assert set(results.parts) == {"model_utility"}


def test_a_table_with_long_names_stays_within_its_width():
    values = {
        "real_authors_of_the_benchmark/exact_memorization": 12345.678,
        "mia_min_k_plus_plus": 0.2,
        "privleak": 150.0,
    }
    results = Results(values, {name: (value - 0.01, value + 0.01) for name, value in values.items()})
    assert max(len(line) for line in str(results).split("\n")) <= 120


def test_results_of_an_evaluation_have_bare_names_for_forget():
    evaluation = Evaluation(
        3,
        {"forget/probability": 0.1, "retain/probability": 0.9, "model_utility": 0.9},
        intervals={"forget/probability": (0.0, 0.2)},
        parts={"model_utility": ["retain/probability"]},
    )
    results = Results.of(evaluation)
    assert results == {"probability": 0.1, "retain/probability": 0.9, "model_utility": 0.9}
    assert results.intervals == {"probability": (0.0, 0.2)}
    assert results.parts == evaluation.parts
    assert Results.of(evaluation, ["probability"]) == {"probability": 0.1, "retain/probability": 0.9}


def test_numbers_keep_three_digits_whatever_their_size():
    assert [number(value) for value in (0.0, 1.0, -99.9999, 1e-21, -0.0005, math.inf)] == [
        "0.000",
        "1.000",
        "-100.000",
        "1e-21",
        "-0.0005",
        "inf",
    ]


def test_all_among_the_metrics_shows_all():
    found = Evaluation(1, {"forget/probability": 0.5, "mia": 0.4})
    assert Results.of(found, ["all", "rouge"]) == Results.of(found) == {"probability": 0.5, "mia": 0.4}
    assert Results.of(found, ["mia"]) == {"mia": 0.4}
