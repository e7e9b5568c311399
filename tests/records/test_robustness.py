"""How a model stands: the largest share, which attack it was, and the file of it."""

from __future__ import annotations

import json
import math

import pytest

from unlearun.records import Attacked, Evaluation, Standing, judge_metrics, stand, summarise, with_golds

MEASURED = ("extraction_strength", "probability")


def evaluation(es: float, probability: float = 0.1, rows: int = 4) -> Evaluation:
    record = {"extraction_strength": es, "probability": probability, "exact_memorization": es}
    found = Evaluation(1, examples={"forget": {str(i): dict(record) for i in range(rows)}})
    summarise(found)
    return found


def attacked(name: str, kind: str, behavioural: bool = True, **variants: float) -> Attacked:
    made = {words.replace("_", " "): evaluation(es) for words, es in variants.items()}
    return Attacked(name, "key", {"class_path": f"unlearun.attacks.{kind}"}, behavioural, MEASURED, made)


@pytest.fixture
def attacks() -> list[Attacked]:
    relearn = attacked("relearn", "Relearn", on_01_of_the_forget_rows=0.4, on_retain_rows=0.3)
    relearn.curves = {"on retain rows": [(0, 0.2, 0.1), (3, 0.3, math.nan)]}
    quantise = attacked("quantise", "Quantise", nf4=0.25)
    quantise.skipped = {"int4": "needs the package torchao"}
    looking = attacked("look", "LookInside", behavioural=False, somehow=0.9)
    looking.figures = {"lens": [0.1, 0.2]}
    return [relearn, quantise, looking]


def test_robustness_is_one_less_the_largest_share_of_a_behavioural_attack(attacks):
    """Of 1.0 to 0.2, 0.8 were forgotten; relearning on forget rows brings 0.2 of them back, a quarter."""
    standing = stand("a", "NPO", attacks, evaluation(0.2), evaluation(1.0, 0.9), None)
    assert standing.robustness == pytest.approx(0.75)
    assert (standing.strongest.attack, standing.strongest.variant) == ("relearn", "on 01 of the forget rows")
    assert standing.of_attack("quantise").main.share == pytest.approx(0.05 / 0.8)
    assert standing.of_attack("nothing") is None
    assert standing.skipped == {"quantise, int4": "needs the package torchao"}
    assert standing.figures == {"look": {"lens": [0.1, 0.2]}}


def test_without_a_start_robustness_is_unknown(attacks):
    standing = stand("a", "NPO", attacks, evaluation(0.2), None, None)
    assert math.isnan(standing.robustness)
    assert standing.strongest is None
    assert standing.to_json()["robustness"] is None


def test_it_is_read_as_it_was_written(attacks, tmp_path):
    gold = stand("retain model", "", attacks, evaluation(0.2), evaluation(1.0), evaluation(0.2))
    standing = stand("a", "NPO", attacks, evaluation(0.2), evaluation(1.0, 0.9), evaluation(0.2))
    standing.gold, standing.metrics = gold, {"mia": {"R": 0.5}}
    standing.write(tmp_path / "summary.json")
    again = Standing.read(tmp_path / "summary.json")
    assert again.to_json() == standing.to_json()
    assert again.robustness == standing.robustness
    assert again.tried[1].curve[0] == (0, 0.2, 0.1)
    assert math.isnan(again.tried[1].curve[1][2])
    attacks[0].write(tmp_path / "relearn.json")
    stored = Attacked.read(tmp_path / "relearn.json")
    assert stored.variants == attacks[0].variants
    assert stored.measured == MEASURED


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"tried": 3}', '{"variants": {}}', "nonsense", '{"tried": [{}]}'])
def test_a_broken_file_is_no_standing(tmp_path, text):
    (tmp_path / "file.json").write_text(text)
    assert Standing.read(tmp_path / "file.json") is None
    assert Attacked.read(tmp_path / "file.json") is None
    assert Standing.read(tmp_path / "none.json") is None


def test_a_standing_with_a_wrong_value_is_none(attacks, tmp_path):
    stored = stand("a", "NPO", attacks, evaluation(0.2), evaluation(1.0), None).to_json()
    for change in ({"tried": [{**stored["tried"][0], "main": {"share": "much"}}]}, {"score": None}, {"gold": 3}):
        (tmp_path / "file.json").write_text(json.dumps({**stored, **change}))
        assert Standing.read(tmp_path / "file.json") is None


def test_retain_models_come_last_and_once(attacks):
    gold = stand("retain model", "", attacks, evaluation(0.2), evaluation(1.0), None)
    same = stand("retain model", "", attacks, evaluation(0.2), evaluation(1.0), None)
    two = [stand(name, "NPO", attacks, evaluation(0.2), evaluation(1.0), None) for name in "ab"]
    two[0].gold, two[1].gold = gold, same
    assert [one.name for one in with_golds(two)] == ["a", "b", "retain model"]


def test_metrics_are_judged_by_relearning_on_forget_rows_and_by_quantisation(attacks):
    """R: ES rises by 0.2 here and by 0.1 in the retain model. Q: 0.2 before, 0.25 after."""
    theirs = [attacked("relearn", "Relearn", on_01_of_the_forget_rows=0.3, on_retain_rows=0.9), *attacks[1:]]
    judged = judge_metrics(attacks, evaluation(0.2), theirs, evaluation(0.2))
    assert judged["forget/extraction_strength"] == pytest.approx({"R": 0.5, "Q": 0.8})
    assert judged["forget/probability"] == pytest.approx({"R": 1.0, "Q": 1.0})
    assert judged["forget_quality"]["Q"] < 1
    assert "mia" not in judged
