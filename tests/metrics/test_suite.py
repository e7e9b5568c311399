"""All metrics of all sets from one forward, and what is written of them."""

from __future__ import annotations

import json
import math

import pytest
import torch
from conftest import make_llama, random_batch

from unlearun.metrics import METRICS, Evaluation, EvaluationSuite
from unlearun.models import Policy

TITLES = ["perplexity", "probability", "exact_memorization"]


def feed(suite, sets, policy):
    for name, batches in sets.items():
        for batch in batches:
            suite.update(name, policy(batch, "stats"), batch)


def numbered(seed, first):
    batch = random_batch(seed=seed)
    batch.example_id = torch.arange(first, first + len(batch))
    return batch


# Names that a ModuleDict would not take, and two batches in one of the sets.
SETS = {
    "forget": [numbered(1, 0), numbered(2, 3)],
    "retain": [numbered(3, 0)],
    "world.facts": [numbered(4, 0)],
    "update": [numbered(5, 0)],
}


@pytest.fixture
def policy():
    return Policy(make_llama()).eval()


def test_equals_each_metric_alone(policy):
    suite = EvaluationSuite(list(SETS))
    feed(suite, SETS, policy)
    found = suite.compute(7)
    assert found.step == 7
    expected = {}
    for name, batches in SETS.items():
        for metric_class in METRICS:
            metric = metric_class()
            for batch in batches:
                metric.update(policy(batch, "stats"), batch)
            expected[f"{name}/{metric.title}"] = metric.compute().item()
            records = {int(i): values[metric.title] for i, values in found.examples[name].items()}
            assert records == metric.per_example()
    assert {name: found.summary[name] for name in expected} == expected
    assert [metric.title for metric in METRICS] == TITLES
    assert list(found.examples["forget"]) == ["0", "1", "2", "3", "4", "5"]
    assert all(list(values) == TITLES for values in found.examples["forget"].values())


def test_aggregates_and_their_parts(policy):
    suite = EvaluationSuite(list(SETS))
    feed(suite, SETS, policy)
    found = suite.compute(0)
    summary = found.summary
    probabilities = [summary[f"{name}/probability"] for name in ("retain", "world.facts", "update")]
    assert summary["model_utility"] == pytest.approx(3 / sum(1 / value for value in probabilities))
    left = [1 - summary["forget/exact_memorization"], 1 - summary["forget/probability"]]
    assert summary["forget_quality"] == pytest.approx(2 / sum(1 / value for value in left))
    assert found.fingerprint == {
        "forget_quality_parts": ["1-exact_memorization", "1-probability"],
        "model_utility_parts": ["retain/probability", "world.facts/probability", "update/probability"],
    }


def test_aggregates_are_left_out_without_their_sets(policy):
    suite = EvaluationSuite(["holdout"])
    feed(suite, {"holdout": SETS["retain"]}, policy)
    found = suite.compute(0)
    assert list(found.summary) == [f"holdout/{title}" for title in TITLES]
    assert found.fingerprint == {}


def test_compute_resets(policy):
    """A second round is not mixed with the first."""
    suite = EvaluationSuite(["forget"])
    feed(suite, {"forget": SETS["forget"]}, policy)
    first = suite.compute(0)
    feed(suite, {"forget": SETS["retain"]}, policy)
    second = suite.compute(1)
    assert len(first.examples["forget"]) == 6
    assert len(second.examples["forget"]) == 3
    fresh = EvaluationSuite(["forget"])
    feed(fresh, {"forget": SETS["retain"]}, policy)
    assert fresh.compute(1) == second


def test_sets_are_kept_apart(policy):
    """What one set sees does not reach another, though their metrics have states of equal names."""
    suite = EvaluationSuite(["forget", "retain"])
    feed(suite, {"forget": SETS["forget"], "retain": SETS["retain"]}, policy)
    both = suite.compute(0)
    suite = EvaluationSuite(["retain"])
    feed(suite, {"retain": SETS["retain"]}, policy)
    alone = suite.compute(0)
    assert alone.examples["retain"] == both.examples["retain"]


def test_holds_nothing_that_is_saved(policy):
    suite = EvaluationSuite(list(SETS))
    feed(suite, SETS, policy)
    assert suite.state_dict() == {}
    assert not list(suite.parameters())


def test_unknown_set(policy):
    with pytest.raises(ValueError, match="not in tuple"):
        EvaluationSuite(["forget"]).update("retain", policy(SETS["retain"][0], "stats"), SETS["retain"][0])


# ---- what is written --------------------------------------------------------------------------------------------


def make_evaluation():
    return Evaluation(
        step=12,
        summary={"forget/probability": 0.1 + 0.2, "forget/perplexity": 1e300, "model_utility": 1 / 3},
        examples={"forget": {"0": {"probability": 0.5, "generated": "Ana “lives” in Köln.\n"}, "17": {"rouge": 1.0}}},
        fingerprint={"model": "abc", "rows": 2, "parts": ["a", "b"], "nothing": None},
    )


def test_written_and_read_again(tmp_path):
    """Every number to the last bit; the folder is made; the file is plain JSON with the text readable."""
    evaluation = make_evaluation()
    file = tmp_path / "eval" / "step=12.json"
    evaluation.write(file)
    assert Evaluation.read(file) == evaluation
    assert json.loads(file.read_text(encoding="utf-8"))["summary"]["forget/probability"] == 0.1 + 0.2
    assert "Köln" in file.read_text(encoding="utf-8")
    assert list(file.parent.iterdir()) == [file]


def test_a_computed_evaluation_can_be_written(policy, tmp_path):
    suite = EvaluationSuite(list(SETS))
    feed(suite, SETS, policy)
    evaluation = suite.compute(3)
    evaluation.write(tmp_path / "step=3.json")
    assert Evaluation.read(tmp_path / "step=3.json") == evaluation


def test_a_value_that_is_no_number_is_null_in_the_file_and_comes_back_as_nan(tmp_path):
    evaluation = Evaluation(0, {"forget/probability": math.nan, "forget/perplexity": math.inf})
    evaluation.write(tmp_path / "step=0.json")
    summary = Evaluation.read(tmp_path / "step=0.json").summary
    assert all(math.isnan(value) for value in summary.values())
    assert json.loads((tmp_path / "step=0.json").read_text())["summary"]["forget/perplexity"] is None


def test_writing_replaces(tmp_path):
    file = tmp_path / "step=0.json"
    Evaluation(0, {"a": 1.0}).write(file)
    Evaluation(0, {"a": 2.0}).write(file)
    assert Evaluation.read(file).summary == {"a": 2.0}


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    """What stood there stays, and nothing else is left, when a value cannot be written (here halfway through)."""
    file = tmp_path / "step=0.json"
    evaluation = make_evaluation()
    evaluation.write(file)
    broken = make_evaluation()
    broken.fingerprint["object"] = object()
    with pytest.raises(TypeError):
        broken.write(file)
    assert list(tmp_path.iterdir()) == [file]
    assert Evaluation.read(file) == evaluation


def test_others_may_read_what_is_written(tmp_path):
    """As any new file: a report is opened by other users and by web servers."""
    (tmp_path / "plain.json").write_text("{}")
    Evaluation(0, {}).write(tmp_path / "step=0.json")
    assert (tmp_path / "step=0.json").stat().st_mode == (tmp_path / "plain.json").stat().st_mode
