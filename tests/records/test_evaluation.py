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


def test_the_role_of_a_set():
    assert [role_of(name) for name in ("forget", "forget_paraphrased", "retain", "holdout10", "world_facts")] == [
        "forget",
        "forget",
        "retain",
        "holdout",
        "utility",
    ]
