"""What an evaluation found, and its file."""

from __future__ import annotations

import json
import math

import pytest

from unlearun.errors import UnlearunError
from unlearun.records import Evaluation, role_of, summarise

WRONG = [
    ('{"summary": {}, "examples"', "is no JSON"),
    ("[]", "holds no summary and examples"),
    ('{"summary": {}}', "holds no summary and examples"),
    ('{"summary": {}, "examples": {}}', "'step' is no whole number"),
    ('{"step": 1, "summary": {}, "examples": {}, "color": "red"}', "has a 'color'"),
    ('{"step": 1, "summary": {"mia": "high"}, "examples": {}}', "'summary/mia' is 'high'"),
    ('{"step": 1, "summary": {}, "examples": {"forget": []}}', "'examples/forget' is"),
    ('{"step": 1, "summary": {}, "examples": {"forget": {"0": 0.5}}}', "'examples/forget/0' is 0.5"),
    ('{"step": 1, "summary": {}, "examples": {}, "parts": []}', "'parts' is no mapping"),
    ('{"step": 1, "summary": {}, "examples": {}, "intervals": {"mia": 3}}', "'intervals/mia' is 3"),
    ('{"step": 1, "summary": {}, "examples": {}, "intervals": {"mia": [0.1]}}', r"'intervals/mia' is \[0.1\]"),
    ('{"step": 1, "summary": {}, "examples": {}, "intervals": {"mia": [0, "1"]}}', r"'intervals/mia' is \[0, '1'\]"),
    ('{"step": 1, "summary": {}, "examples": {}, "parts": {"model_utility": [3]}}', "'parts/model_utility' is"),
    ('{"step": 1, "summary": {}, "examples": {}, "metrics": null}', "'metrics' is None, no list of names"),
    ('{"step": 1, "summary": {}, "examples": {}, "metrics": 5}', "'metrics' is 5, no list of names"),
    ('{"step": 1, "summary": {}, "examples": {}, "metrics": [1]}', r"'metrics' is \[1\], no list of names"),
    (f'{{"step": 1, "summary": {{"mia": {10**400}}}, "examples": {{}}}}', "'summary/mia' is 1000"),
    (f'{{"step": 1, "summary": {{}}, "examples": {{}}, "given": {{"mia": {-(10**400)}}}}}', "'given/mia' is -1000"),
    *[
        (f'{{"step": 1, "summary": {{}}, "examples": {{}}, "fingerprint": {fingerprint}}}', message)
        for fingerprint, message in {
            '{"template": "Q: "}': "'fingerprint/template' is 'Q: '",
            '{"template": [1]}': r"'fingerprint/template' is \[1\]",
            '{"kind": ["tofu"]}': r"'fingerprint/kind' is \['tofu'\]",
            '{"tokenizer": 5}': "'fingerprint/tokenizer' is 5",
            '{"retain_reference": {}}': "'fingerprint/retain_reference' is {}",
            '{"sets": ["forget"]}': r"'fingerprint/sets' is \['forget'\]",
            '{"sets": {"forget": 40}}': "'fingerprint/sets/forget' is 40, no mapping with a number of rows",
            '{"sets": {"forget": {"rows": "many"}}}': "'fingerprint/sets/forget' is {'rows': 'many'}",
        }.items()
    ],
    ("[" * 100_000 + "]" * 100_000, "is nested deeper than 100 levels"),
    ("[" * 101 + "]" * 101, "is nested deeper than 100 levels"),
    ('{"a": ' * 500 + "1" + "}" * 500, "is nested deeper than 100 levels"),
    ("[" * 100 + "]" * 100, "holds no summary and examples"),
]


def made() -> Evaluation:
    examples = {
        "forget": {"0": {"probability": 0.1 + 0.2, "answer": "naïve 名"}, "1": {"probability": 1 / 3}},
        "retain": {"7": {"probability": 0.9}},
    }
    evaluation = Evaluation(12, examples=examples, fingerprint={"model": "m", "sets": {}}, metrics=["probability"])
    summarise(evaluation)
    return evaluation


def test_round_trip(tmp_path):
    evaluation = made()
    evaluation.given, evaluation.parts = {"mia": 0.5}, {"model_utility": ["retain/probability"]}
    evaluation.write(tmp_path / "eval" / "step=12.json")
    assert Evaluation.read(tmp_path / "eval" / "step=12.json") == evaluation


def test_scored_again_it_is_the_same_to_the_last_digit(tmp_path):
    evaluation = made()
    evaluation.write(tmp_path / "file.json")
    again = Evaluation.read(tmp_path / "file.json")
    summarise(again)
    assert again == evaluation


def test_what_json_lacks_is_null_in_the_file_and_nan_when_read(tmp_path):
    evaluation = Evaluation(0, {"a": math.nan, "b": math.inf}, intervals={"a": (math.nan, 1.0)}, given={"c": -math.inf})
    evaluation.write(tmp_path / "file.json")
    assert json.loads((tmp_path / "file.json").read_text())["summary"] == {"a": None, "b": None}
    again = Evaluation.read(tmp_path / "file.json")
    assert all(math.isnan(value) for value in [*again.summary.values(), *again.given.values(), again.intervals["a"][0]])
    assert again.intervals["a"][1] == 1.0


def test_it_is_written_whole_or_not_at_all(tmp_path):
    evaluation = made()
    evaluation.write(tmp_path / "file.json")
    before = (tmp_path / "file.json").read_bytes()
    evaluation.fingerprint["odd"] = object()
    with pytest.raises(TypeError):
        evaluation.write(tmp_path / "file.json")
    assert (tmp_path / "file.json").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["file.json"]


@pytest.mark.parametrize(("text", "message"), WRONG)
def test_wrong_files_are_named_with_what_is_wrong(tmp_path, text, message):
    (tmp_path / "file.json").write_text(text)
    with pytest.raises(UnlearunError, match=message) as error:
        Evaluation.read(tmp_path / "file.json")
    assert str(tmp_path / "file.json") in str(error.value)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(UnlearunError, match="No such file"):
        Evaluation.read(tmp_path / "missing.json")
    (tmp_path / "latin.json").write_bytes(b'{"a": "\xe9"}')
    with pytest.raises(UnlearunError, match="is no JSON"):
        Evaluation.read(tmp_path / "latin.json")


def test_facts_that_are_null_are_not_there(tmp_path):
    facts = {"template": None, "kind": None, "sets": None, "tokenizer": None, "more": [1]}
    Evaluation(0, fingerprint=facts).write(tmp_path / "file.json")
    assert Evaluation.read(tmp_path / "file.json").fingerprint == facts


def test_whole_numbers_are_read_as_floats(tmp_path):
    (tmp_path / "file.json").write_text('{"step": 1, "summary": {}, "examples": {}, "given": {"mia_min_k": 1}}')
    assert isinstance(Evaluation.read(tmp_path / "file.json").given["mia_min_k"], float)


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("forget", "forget"),
        ("forget_paraphrased", "forget"),
        ("retain-near", "retain"),
        ("holdout_", "holdout"),
        ("utility_facts", "utility"),
        ("world_facts", "utility"),
        ("forgetting_curve", "utility"),
        ("retained", "utility"),
        ("holdouts", "utility"),
        ("holdout10", "holdout"),
        ("Forget", "utility"),
        ("not_forget", "utility"),
        ("", "utility"),
    ],
)
def test_the_role_of_a_set(name, role):
    assert role_of(name) == role
