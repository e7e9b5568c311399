from __future__ import annotations

from unlearun.report import Results, before_after, text_table


def test_columns_line_up():
    lines = text_table(["", "a"], [["x", "1"], ["long", "22"]]).split("\n")
    assert lines == ["       a", "----  --", "x      1", "long  22"]


def test_before_after_leaves_out_what_was_not_measured_before():
    table = before_after({"forget/probability": 0.9}, {"forget/probability": 0.1, "new": 1.0})
    assert table.split("\n")[2].split() == ["forget/probability", "0.900", "0.100", "lower"]
    assert "new" not in table


def test_results_print_the_better_direction_of_each_set():
    printed = str(Results({"perplexity": 12.0, "retain/perplexity": 2.0, "model_utility": 0.5}))
    rows = {line.split()[0]: line.split()[1:] for line in printed.split("\n")[2:]}
    assert rows == {
        "perplexity": ["12.000", "higher"],
        "retain/perplexity": ["2.000", "lower"],
        "model_utility": ["0.500", "higher"],
    }
