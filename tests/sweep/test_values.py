from __future__ import annotations

import pytest

from unlearun.errors import UnlearunError
from unlearun.sweep.values import Range, plain, read_grid, read_search, read_space, split_values


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,2,5", ["1", "2", "5"]),
        ("[a,b],[c]", ["[a,b]", "[c]"]),
        ("{path: a, split: b},null", ["{path: a, split: b}", "null"]),
        ("[[1,2],[3]], x", ["[[1,2],[3]]", "x"]),
        ("'a,b',c", ["'a,b'", "c"]),
        ("['a],b'],c", ["['a],b']", "c"]),
        ("don't,can't", ["don't", "can't"]),
        ("1", ["1"]),
        ("", [""]),
    ],
)
def test_commas_split_at_the_top_level_alone(text, expected):
    assert split_values(text) == expected


@pytest.mark.parametrize("text", ["[a,b", "a]", "{a", "'a,b"])
def test_a_bracket_or_quote_without_its_partner_is_an_error(text):
    with pytest.raises(UnlearunError, match="without its partner"):
        split_values(text)


def test_quotes_keep_a_comma_and_are_taken_off():
    assert read_grid(["data.prompt_template='Q: {question}, A:',x"])["data.prompt_template"] == [
        "Q: {question}, A:",
        "x",
    ]


def test_a_grid_keeps_the_order_and_the_writing_of_its_values():
    grid = read_grid(["--model.gamma=1,2.0", "optimizer.lr = 1e-4, 3e-4", "model.init_args.alpha=1"])
    assert grid == {"model.gamma": ["1", "2.0"], "optimizer.lr": ["1e-4", "3e-4"], "model.alpha": ["1"]}
    assert list(grid) == ["model.gamma", "optimizer.lr", "model.alpha"]
    assert plain("--model.init_args.gamma") == "model.gamma"


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["model.gamma"], "--grid 'model.gamma' has no value; expected KEY=VALUE,VALUE"),
        (["=1,2"], "has no value"),
        (["model.gamma="], "model.gamma= holds an empty value"),
        (["model.gamma=1,,2"], "model.gamma=1,,2 holds an empty value"),
        (["model.gamma=1", "model.gamma=2"], "--grid model.gamma stands there twice"),
        (["model.gamma=1", "model.init_args.gamma=2"], "--grid model.gamma stands there twice"),
        (["optimizer.lr=1e-4,0.0001"], "optimizer.lr=1e-4,0.0001 holds 0.0001 twice"),
        (["output_dir=a,b"], "the sweep gives each run a folder of its own"),
        (["model.x=[a"], "model.x: '[a' has a bracket without its partner"),
    ],
)
def test_a_wrong_grid_is_explained(texts, said):
    with pytest.raises(UnlearunError) as caught:
        read_grid(texts)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1e-5..1e-3:log", Range(1e-5, 1e-3, log=True)),
        ("0.1..1", Range(0.1, 1.0)),
        ("1..1.0e1", Range(1.0, 10.0)),
        ("-2..8", Range(-2, 8, whole=True)),
        ("1..64:log", Range(1, 64, log=True, whole=True)),
        ("a,b,c", ["a", "b", "c"]),
        ("../a.json,../b.json", ["../a.json", "../b.json"]),
    ],
)
def test_a_space_is_a_range_or_a_list(text, expected):
    assert read_space("k", text) == expected
    assert read_search([f"k={text}"]) == {"k": text}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1..1.0", "--search k=1..1.0 is an empty range"),
        ("2..1", "is an empty range"),
        ("0..1:log", "with :log it must begin above 0"),
        ("1..2:lin", "ends with ':lin'"),
        ("a,a", "holds a twice"),
    ],
)
def test_a_wrong_space_is_explained(text, said):
    with pytest.raises(UnlearunError) as caught:
        read_search([f"k={text}"])
    assert said in str(caught.value)
