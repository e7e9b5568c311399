"""How a model stands: the largest share, which attack it was, and the file of it."""

from __future__ import annotations

import json
import math

import pytest

from unlearun.records import (
    Attacked,
    Evaluation,
    Standing,
    judge_metrics,
    mean_of,
    other_attacks,
    stand,
    summarise,
    with_golds,
)

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
    same.seconds = {name: seconds + 1 for name, seconds in same.seconds.items()}  # it was attacked twice
    two = [stand(name, "NPO", attacks, evaluation(0.2), evaluation(1.0), None) for name in "ab"]
    two[0].gold, two[1].gold = gold, same
    assert [one.name for one in with_golds(two)] == ["a", "b", "retain model"]


def judged_by(attacks, **more):
    """R of a relearning on all forget rows in which ES rises by 0.2 here and by 0.1 in the retain model."""
    ours = attacked("learn_all", "Relearn", on_all_forget_rows=0.4)
    theirs = attacked("learn_all", "Relearn", on_all_forget_rows=0.3)
    for one in (ours, theirs):
        one.settings["init_args"] = {"share": 1}
    return judge_metrics([ours, *attacks], evaluation(0.2), [theirs, *attacks], evaluation(0.2), **more)


def test_metrics_are_judged_by_learning_all_rows_again_and_by_quantisation(attacks):
    """Q: 0.2 before, 0.25 after. Relearning on a few rows, of which a retain model learns nothing, does not count."""
    judged = judged_by(attacks)
    assert judged["forget/extraction_strength"] == pytest.approx({"R": 0.5, "Q": 0.8})
    assert judged["forget/probability"] == pytest.approx({"Q": 1.0})  # it did not rise, so nothing is known
    assert judged["forget_quality"]["Q"] < 1
    assert "mia" not in judged


def test_a_metric_is_judged_where_it_calls_a_model_unlearned(attacks):
    """ES of 0.2 is the retain model's own; a probability of 0.1 is nearer to a start of 0.05 than to a gold of 0.1."""
    start = evaluation(1.0, 0.1)
    judged = judged_by(attacks, start=start)
    assert set(judged["forget/extraction_strength"]) == {"R", "Q"}
    near = evaluation(0.21, 0.1)  # before unlearning it was hardly more
    gold = evaluation(0.0)
    assert "forget/extraction_strength" not in judge_metrics(attacks, evaluation(0.2), attacks, gold, near)


def test_metrics_are_not_judged_on_a_model_of_no_use(attacks):
    ruined, start = evaluation(0.2), evaluation(1.0)
    for one, utility in ((ruined, 0.3), (start, 0.5)):
        one.summary["model_utility"], one.parts["model_utility"] = utility, ["retain/probability"]
    assert judge_metrics(attacks, ruined, attacks, evaluation(0.2), start) == {}
    ruined.summary["model_utility"] = 0.45
    assert judge_metrics(attacks, ruined, attacks, evaluation(0.2), start)


def test_truth_ratios_are_judged_as_choices():
    """p_c/(p_c + p_w) = 1/(1 + R) rises with knowledge all the way, where min(R, 1/R) turns: 0.25 before, 0.5 after."""

    def told(ratio: float) -> Evaluation:
        found = Evaluation(1, examples={"forget": {"0": {"truth_ratio": ratio}, "1": {"truth_ratio": ratio}}})
        summarise(found)
        return found

    quantise = Attacked("quantise", "key", {"class_path": "a.Quantise"}, True, MEASURED, {"nf4": told(1.0)})
    judged = judge_metrics([quantise], told(3.0), [], told(3.0))
    assert judged["forget/truth_ratio"] == pytest.approx({"Q": 0.5})


def test_where_nothing_was_forgotten_nothing_is_robust(attacks):
    """Of 0.24 to 0.2 is too little; that a sample hits what a greedy answer misses does not make it more."""
    sample = attacked("sample", "Sample", somehow=0.9)
    standing = stand("a", "NPO", [*attacks, sample], evaluation(0.2, 0.1), evaluation(0.24, 0.9), None)
    assert standing.forgotten == pytest.approx(0.04)
    assert math.isnan(standing.robustness)


def test_what_is_compared_otherwise_says_with_what(attacks):
    """Half of the rest is said when some is given away, a quarter without, all of it before: a third came back."""
    given = attacked("give_away", "GiveAway", given_4_tokens=0.5)
    sides = {name: evaluation(es).examples["forget"] for name, es in (("unlearned", 0.25), ("start", 1.0))}
    given.compared = {"given 4 tokens": sides}
    standing = stand("a", "NPO", [given], evaluation(0.0), evaluation(0.9), None)
    assert standing.of_attack("give_away").main.share == pytest.approx(1 / 3)
    del sides["start"]
    standing = stand("a", "NPO", [given], evaluation(0.0), evaluation(0.9), None)
    assert standing.of_attack("give_away") is None
    assert standing.has_tried("give_away")


def test_robustness_against_other_attacks_is_not_compared(attacks):
    one = stand("a", "NPO", attacks, evaluation(0.2), evaluation(1.0), None)
    other = stand("b", "NPO", attacks[:1], evaluation(0.2), evaluation(1.0), None)
    assert other_attacks([one, one]) == ""
    assert "b without quantise." in other_attacks([one, other])


def test_an_attack_in_fewer_ways_is_another(attacks):
    both = stand("a", "NPO", [attacked("quantise", "Quantise", nf4=0.3, int4=0.5)], evaluation(0.2), None, None)
    one = stand("b", "NPO", [attacked("quantise", "Quantise", nf4=0.3)], evaluation(0.2), None, None)
    assert "b without quantise (int4)." in other_attacks([both, one])


def test_a_model_that_is_broken_is_told_from_its_file(tmp_path):
    """NaN is null in a file; what is known of it is that nothing is known, and never a mean of the rows left."""
    broken = Evaluation(1, examples={"forget": {"0": {"probability": math.nan}, "1": {"probability": 0.5}}})
    broken.write(tmp_path / "step=1.json")
    assert math.isnan(mean_of(Evaluation.read(tmp_path / "step=1.json"), "probability"))
    assert mean_of(broken, "probability", {"1"}) == 0.5


def test_retain_models_of_other_data_are_told_apart(attacks):
    two = [stand(name, "NPO", attacks, evaluation(0.2), evaluation(1.0), None) for name in "ab"]
    for one, es in zip(two, (0.2, 0.3), strict=True):
        one.gold = stand("retain model", "", attacks, evaluation(es), evaluation(1.0), None)
    assert [one.name for one in with_golds(two)] == ["a", "b", "retain model of a", "retain model of b"]
