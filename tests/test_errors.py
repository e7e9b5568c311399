from __future__ import annotations

import pytest

from unlearun.errors import UnlearunError, all_at_once, closest


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("steering_coef", " Did you mean 'steering_coeff'?"),
        ("gama", " Did you mean 'gamma'?"),
        ("rmu", " Did you mean 'RMU'?"),
        ("GAMMA", " Did you mean 'gamma'?"),
        ("zzz", ""),
        ("", ""),
    ],
)
def test_closest_names_the_nearest_or_nothing(word, hint):
    assert closest(word, ["steering_coeff", "gamma", "RMU"]) == hint


def test_closest_takes_any_iterable_even_an_empty_one():
    assert closest("gama", iter(["alpha", "gamma"])) == " Did you mean 'gamma'?"
    assert closest("gama", []) == ""


def test_one_problem_is_one_problem():
    error = all_at_once(["line 3: odd"], "f.json")
    assert isinstance(error, UnlearunError)
    assert str(error) == "f.json: 1 problem\n  line 3: odd"


@pytest.mark.parametrize(("count", "shown", "rest"), [(2, 2, None), (10, 10, None), (11, 10, "  ... and 1 more")])
def test_ten_problems_are_shown_and_the_rest_counted(count, shown, rest):
    lines = str(all_at_once([f"line {n}" for n in range(count)], "f.json")).splitlines()
    assert lines[0] == f"f.json: {count} problems"
    assert lines[1 : 1 + shown] == [f"  line {n}" for n in range(shown)]
    assert lines[1 + shown :] == ([rest] if rest else [])
